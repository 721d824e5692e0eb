/** What fails in a cluster, and what guarded Pods do then. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import { awaitGuarded, cleanUp, install, OWNS_NODE, SYSTEM } from './installation.ts'
import { apply, getJson, kubectl, pause, tryKubectl, until } from './kubectl.ts'
import { giveNext, killAllContainers, killContainer, stopProgram } from './node.ts'
import { admit, deployment, GUARDED, httpServer, IMAGE, namespace, podSpec, service, sleeper } from './objects.ts'
import { addressOf, awaitFetch, awaitRollouts, containersOf, fetchFrom, firstPod, listPods, REFUSED } from './pods.ts'

const AT = 'failing'
const FREE = 'free'
const OUTAGE_MS = 60_000

const ownNode = OWNS_NODE ? describe : describe.skip

/** Asks the server once every 0.3 s and logs what came of it. */
const asking = (url: string) =>
  sleeper({
    command: ['sh', '-c', `while :; do timeout 3 wget -q -O /dev/null ${url} && echo yes || echo no; sleep 0.3; done`],
  })

/** Holds one connection to the server's echo and logs what comes back. */
const holding = (address: string) =>
  sleeper({ command: ['sh', '-c', `(i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done) | nc ${address} 9000`] })

const echoServer = () => sleeper({ command: ['sh', '-c', 'while :; do nc -l -p 9000 -e cat; done'] })

const logOf = async (app: string, since = '1h') =>
  (await kubectl('-n', AT, 'logs', `deployment/${app}`, '-c', 'app', `--since=${since}`)).trim().split('\n')

function containerId(pod: V1Pod, name: string): string {
  const { initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {}
  return [...initContainerStatuses, ...containerStatuses].find((status) => status.name === name)?.containerID ?? ''
}

const restartsOf = (pod: V1Pod, name: string) =>
  pod.status?.initContainerStatuses?.find((status) => status.name === name)?.restartCount

describe('failures', () => {
  beforeAll(async () => {
    await install()
    await apply(namespace(AT, GUARDED), namespace(FREE))
    await awaitGuarded(AT)
    await apply(
      deployment(AT, 'server', podSpec(httpServer())),
      service(AT, 'server'),
      deployment(AT, 'echo', podSpec(echoServer())),
      deployment(AT, 'client', podSpec(sleeper())),
    )
    await awaitRollouts(AT, 'server', 'echo', 'client')
    await apply(
      deployment(AT, 'asking', podSpec(asking(`http://${await addressOf(AT, 'server')}:8080/`))),
      deployment(AT, 'holding', podSpec(holding(await addressOf(AT, 'echo')))),
    )
    await awaitRollouts(AT, 'asking', 'holding')
  })
  afterAll(() => cleanUp([AT, FREE]))

  describe('without the webhook', () => {
    it('labelled namespaces admit nothing new, others everything, and known peers work', async () => {
      await kubectl('-n', SYSTEM, 'scale', 'deployment/synguard-webhook', '--replicas=0')
      await until('no replica', async () => {
        const { items } = await getJson<{ items: V1Pod[] }>('-n', SYSTEM, 'pods')
        return items.length === 0
      })
      const create = (at: string) =>
        tryKubectl([
          '-n',
          at,
          'run',
          'late',
          `--image=${IMAGE}`,
          '--image-pull-policy=IfNotPresent',
          '--',
          'sleep',
          '9999',
        ])
      const refused = await create(AT)
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('failed calling webhook')])
      expect((await create(FREE)).code).toBe(0)
      await kubectl('-n', FREE, 'wait', '--for=condition=Ready', 'pod/late', '--timeout=60s')
      expect((await logOf('asking', '5s')).filter((line) => line !== 'yes')).toEqual([])
      expect(await fetchFrom(AT, 'client', `http://${await addressOf(AT, 'server')}:8080/`)).toMatch(/^server-/)

      await kubectl('-n', SYSTEM, 'scale', 'deployment/synguard-webhook', '--replicas=2')
      await awaitRollouts(SYSTEM, 'synguard-webhook')
      await until('a Pod to be admitted', async () => (await create(AT)).code === 0)
      await kubectl('-n', AT, 'wait', '--for=condition=Ready', 'pod/late', '--timeout=60s')
      expect(containersOf(await getJson<V1Pod>('-n', AT, 'pod/late'))).toEqual([
        'synguard-init',
        'synguard-sidecar',
        'late',
      ])
    })
  })

  describe('while one of two replicas is killed', () => {
    it('Pods are admitted, each of them guarded', async () => {
      const [replica] = (await getJson<{ items: V1Pod[] }>('-n', SYSTEM, 'pods')).items
      const killed = pause(500).then(() =>
        kubectl('-n', SYSTEM, 'delete', 'pod', replica?.metadata?.name ?? '', '--grace-period=0', '--force'),
      )
      await apply(deployment(AT, 'many', podSpec(sleeper()), 8))
      await killed
      await awaitRollouts(AT, 'many')
      const pods = await listPods(AT, 'many')
      expect(pods.map(containersOf)).toEqual(Array(8).fill(['synguard-init', 'synguard-sidecar', 'app']))
      await kubectl('-n', AT, 'delete', 'deployment/many', '--timeout=60s')
      await awaitRollouts(SYSTEM, 'synguard-webhook')
    })
  })

  ownNode('on a node of our own', () => {
    it('a sidecar that is killed is started again, and released connections go on meanwhile', async () => {
      const before = [await firstPod(AT, 'holding'), await firstPod(AT, 'echo')]
      for (const pod of before) await killContainer(containerId(pod, 'synguard-sidecar'))
      const count = Number((await logOf('holding')).at(-1))
      await until('both sidecars to be back', async () => {
        const now = [await firstPod(AT, 'holding'), await firstPod(AT, 'echo')]
        return now.every(
          (pod) =>
            restartsOf(pod, 'synguard-sidecar') === 1 &&
            pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True',
        )
      })
      const lines = (await logOf('holding')).map(Number)
      expect(lines.at(-1)).toBeGreaterThan(count)
      // One connection from the beginning, nothing of it lost.
      expect(lines).toEqual(lines.map((_, index) => index + 1))
      expect(await fetchFrom(AT, 'client', `http://server.${AT}.svc.cluster.local/`)).toMatch(/^server-/)
    })

    it('guarded traffic goes on while the API server is away for a minute, and what changed arrives after', async () => {
      const start = await stopProgram('kube-apiserver')
      const stopped = Date.now()
      await pause(OUTAGE_MS)
      start()
      await until('the API server', async () => (await tryKubectl(['get', '--raw', '/readyz'])).code === 0)
      const seconds = Math.ceil((Date.now() - stopped) / 1_000)
      const answers = await until('the log', async () => logOf('asking', `${seconds}s`))
      expect(answers.length).toBeGreaterThan(60)
      expect(answers.filter((line) => line !== 'yes')).toEqual([])

      await apply(admit(AT, 'server', 'nobody'))
      await awaitFetch(AT, 'client', `http://${await addressOf(AT, 'server')}:8080/`, REFUSED)
      await kubectl('-n', AT, 'delete', 'networkpolicy', '--all')
      await until('the way to be free', async () =>
        (await fetchFrom(AT, 'client', `http://${await addressOf(AT, 'server')}:8080/`)).startsWith('server-'),
      )
    })

    it('an address that another Pod gets carries nothing of the first one', async () => {
      await apply(admit(AT, 'server', 'trusted'))
      await apply(deployment(AT, 'trusted', podSpec(sleeper())))
      await awaitRollouts(AT, 'trusted')
      const url = `http://${await addressOf(AT, 'server')}:8080/`
      const address = await addressOf(AT, 'trusted')
      await awaitFetch(AT, 'trusted', url, (await firstPod(AT, 'server')).metadata?.name ?? '')
      await kubectl('-n', AT, 'delete', 'deployment/trusted', '--timeout=60s')
      await giveNext(address)
      await apply(deployment(AT, 'other', podSpec(sleeper())))
      await awaitRollouts(AT, 'other')
      expect(await addressOf(AT, 'other')).toBe(address)
      expect(await fetchFrom(AT, 'other', url)).toBe(REFUSED)
      // And one that nobody guards.
      await kubectl('-n', AT, 'delete', 'deployment/other', '--timeout=60s')
      await giveNext(address)
      await apply(deployment(FREE, 'stray', podSpec(sleeper())))
      await awaitRollouts(FREE, 'stray')
      expect(await addressOf(FREE, 'stray')).toBe(address)
      expect(await fetchFrom(FREE, 'stray', url)).toBe(REFUSED)
      await kubectl('-n', AT, 'delete', 'networkpolicy', '--all')
    })

    it('a node that comes back has all its Pods guarded and ready again', async () => {
      const start = await stopProgram('kubelet')
      await killAllContainers()
      start()
      await until(
        'every Pod to be ready',
        async () => {
          for (const app of ['server', 'client', 'echo']) {
            const pod = await firstPod(AT, app)
            if (pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status !== 'True') return false
            if ((restartsOf(pod, 'synguard-sidecar') ?? 0) < 1) return false
          }
          return true
        },
        150,
      )
      await until('the way to be free', async () =>
        (await fetchFrom(AT, 'client', `http://server.${AT}.svc.cluster.local/`)).startsWith('server-'),
      )
      await apply(admit(AT, 'server', 'nobody'))
      await awaitFetch(AT, 'client', `http://server.${AT}.svc.cluster.local/`, REFUSED)
    })
  })
})
