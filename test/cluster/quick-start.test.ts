/** What a new user does, in the order in which it is done: each step stands on those before it. */
import { afterAll, describe, expect, it } from '@jest/globals'
import type { V1Deployment, V1MutatingWebhookConfiguration, V1Secret } from '@kubernetes/client-node'
import { awaitGuarded, cleanUp, install, listOurs, readWebhookLog, SYSTEM, uninstall } from './installation.ts'
import { apply, getJson, kubectl, startKubectl, tryKubectl, until } from './kubectl.ts'
import { admit, deployment, httpServer, namespace, podSpec, policy, service, sleeper } from './objects.ts'
import {
  addressOf,
  awaitFetch,
  awaitRollouts,
  containersOf,
  fetchFrom,
  firstPod,
  REFUSED,
  run,
  sidecarLog,
} from './pods.ts'

const SHOP = 'shop'
const OTHERS = 'others'
const APPS = ['backend', 'frontend', 'stranger']
const SIDECAR = ['synguard-init', 'synguard-sidecar']

const url = () => `http://backend.${SHOP}.svc.cluster.local/`

async function restart(at: string, ...apps: string[]): Promise<void> {
  await kubectl('-n', at, 'rollout', 'restart', ...apps.map((app) => `deployment/${app}`))
  await awaitRollouts(at, ...apps)
  for (const app of apps) await until(`one Pod of ${app}`, async () => (await podsOf(at, app)) === 1)
}

async function podsOf(at: string, app: string): Promise<number> {
  return (await kubectl('-n', at, 'get', 'pods', '-l', `app=${app}`, '-o', 'name')).trim().split('\n').length
}

const templateOf = async (app: string) =>
  (await getJson<V1Deployment>('-n', SHOP, `deployment/${app}`)).spec?.template.spec

/** A step; where one before it failed it says so at once, in place of waiting for what cannot come. */
let isBroken = false
function step(name: string, body: () => Promise<void>): void {
  it(name, async () => {
    if (isBroken) throw new Error('a step before this one failed')
    isBroken = true
    await body()
    isBroken = false
  })
}

/** Of the webhook's log. */
interface Line {
  readonly msg: string
  readonly kids?: readonly string[]
  readonly kind?: string
  readonly wrote?: string
}

describe('a new user', () => {
  afterAll(() => cleanUp([SHOP, OTHERS]))

  step('installs Synguard: both replicas get ready, with one authority and the trust of the API server', async () => {
    expect(await listOurs()).toEqual([])
    await install()
    const { data } = await getJson<V1Secret>('-n', SYSTEM, 'secret/synguard-authority')
    expect(Object.keys(data ?? {}).sort()).toEqual(['identity.json', 'serving.json'])
    const { webhooks } = await getJson<V1MutatingWebhookConfiguration>('mutatingwebhookconfiguration/synguard')
    expect(webhooks?.map(({ clientConfig }) => clientConfig.caBundle)).toEqual([expect.stringMatching(/^LS0t/)])
    const lines = (await readWebhookLog())
      .split('\n')
      .flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Line]))
    const [one, other] = lines.flatMap(({ msg, kids }) => (msg === 'the authority is known' ? [kids] : []))
    expect({ one, other }).toEqual({ one: [expect.any(String)], other: one })
    // Of either kind one replica made the first key.
    expect(lines.flatMap(({ wrote, kind }) => (wrote === 'bootstrap' ? [kind] : [])).sort()).toEqual([
      'identity',
      'serving',
    ])
  })

  step('has workloads that run as ever where no namespace is labelled', async () => {
    await apply(namespace(SHOP), namespace(OTHERS))
    await apply(
      deployment(SHOP, 'backend', podSpec(httpServer())),
      service(SHOP, 'backend'),
      deployment(SHOP, 'frontend', podSpec(sleeper())),
      deployment(OTHERS, 'stranger', podSpec(sleeper())),
    )
    await Promise.all([awaitRollouts(SHOP, 'backend', 'frontend'), awaitRollouts(OTHERS, 'stranger')])
    expect(containersOf(await firstPod(SHOP, 'backend'))).toEqual(['app'])
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    expect(await fetchFrom(OTHERS, 'stranger', url())).toMatch(/^backend-/)
  })

  step(
    'labels a namespace and restarts it: its Pods are guarded and get ready, their templates unchanged',
    async () => {
      const before = await templateOf('backend')
      await kubectl('label', 'namespace', SHOP, 'synguard.io/inject=enabled')
      await awaitGuarded(SHOP)
      await restart(SHOP, 'backend', 'frontend')
      for (const app of ['backend', 'frontend']) {
        const pod = await firstPod(SHOP, app)
        expect(containersOf(pod)).toEqual([...SIDECAR, 'app'])
        expect(pod.metadata?.annotations?.['synguard.io/status']).toBe('injected')
        expect(pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status).toBe('True')
        expect(pod.status?.initContainerStatuses?.map(({ restartCount }) => restartCount)).toEqual([0, 0])
      }
      expect(await templateOf('backend')).toEqual(before)
    },
  )

  step('sees nothing change without a policy: guarded Pods and others reach them', async () => {
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    expect(await fetchFrom(OTHERS, 'stranger', url())).toMatch(/^backend-/)
    expect(await sidecarLog(SHOP, 'backend')).toContain('identity obtained')
  })

  step('applies a policy: who is admitted gets in by name, who is not is refused, and the log says why', async () => {
    await apply(admit(SHOP, 'backend', 'frontend'))
    await awaitFetch(OTHERS, 'stranger', url(), REFUSED)
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    const refused = (await sidecarLog(SHOP, 'backend'))
      .split('\n')
      .filter((line) => line.includes('connection refused'))
    const { source, peer, policies, destinationPort } = JSON.parse(refused.at(-1) ?? '{}')
    expect({ source, peer, policies, destinationPort }).toEqual({
      source: await addressOf(OTHERS, 'stranger'),
      peer: `${OTHERS}/${(await firstPod(OTHERS, 'stranger')).metadata?.name}`,
      policies: [`${SHOP}/backend-admits-frontend`],
      destinationPort: 8080,
    })
  })

  step('takes the permission away while a connection is open: it ends', async () => {
    const address = await addressOf(SHOP, 'backend')
    const script = `(while sleep 0.2; do echo; done) | nc ${address} 8080`
    const open = startKubectl(['-n', SHOP, 'exec', 'deployment/frontend', '-c', 'app', '--', 'sh', '-c', script])
    await until('the connection', async () => {
      const { stdout } = await run(SHOP, 'frontend', 'netstat', '-tn')
      return stdout.includes(`${address}:8080`) && stdout.includes('ESTABLISHED')
    })
    await apply(admit(SHOP, 'backend', 'nobody'))
    await kubectl('-n', SHOP, 'delete', 'networkpolicy/backend-admits-frontend')
    expect(
      await Promise.race([open.ended, until('nothing', async () => false, 30).catch(() => 'still open')]),
    ).not.toBe('still open')
    await open.stop()
    await awaitFetch(SHOP, 'frontend', url(), REFUSED)
    await kubectl('-n', SHOP, 'delete', 'networkpolicy/backend-admits-nobody')
  })

  step('denies egress but to DNS: names resolve, nothing else is reached', async () => {
    const isolate = {
      podSelector: { matchLabels: { app: 'frontend' } },
      policyTypes: ['Egress'],
      egress: [
        {
          to: [
            {
              namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
              podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
            },
          ],
          ports: [
            { protocol: 'UDP', port: 53 },
            { protocol: 'TCP', port: 53 },
          ],
        },
      ],
    }
    await apply(policy(SHOP, 'frontend-egress', isolate))
    await awaitFetch(SHOP, 'frontend', url(), REFUSED)
    const { code, stdout } = await run(SHOP, 'frontend', 'nslookup', `backend.${SHOP}.svc.cluster.local`)
    expect([code, stdout]).toEqual([0, expect.stringContaining('Address')])
    await kubectl('-n', SHOP, 'delete', 'networkpolicy/frontend-egress')
    await until('the way to be free', async () => (await fetchFrom(SHOP, 'frontend', url())).startsWith('backend-'))
  })

  step('removes the label and restarts: all is as before', async () => {
    await apply(admit(SHOP, 'backend', 'nobody'))
    await awaitFetch(SHOP, 'frontend', url(), REFUSED)
    await kubectl('label', 'namespace', SHOP, 'synguard.io/inject-')
    await restart(SHOP, 'backend', 'frontend')
    expect(containersOf(await firstPod(SHOP, 'backend'))).toEqual(['app'])
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    await until('nothing of ours to be in the namespace', async () => {
      const { stdout } = await tryKubectl(['-n', SHOP, 'get', 'configmap,rolebinding', '-o', 'name'])
      return !stdout.includes('synguard')
    })
  })

  step('deletes it while guarded Pods run: nothing is left but these, and they go on', async () => {
    await kubectl('label', 'namespace', SHOP, 'synguard.io/inject=enabled', '--overwrite')
    await awaitGuarded(SHOP)
    await kubectl('-n', SHOP, 'delete', 'networkpolicy', '--all')
    await restart(SHOP, 'backend', 'frontend')
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    await uninstall()
    const pods = [...APPS.slice(0, 2)]
    await until('nothing of ours to be left', async () => {
      const left = await listOurs()
      const others = left.filter((line) => !pods.some((app) => new RegExp(`^Pod\\s+${SHOP}\\s+${app}-`).test(line)))
      if (others.length > 0) throw new Error(others.join('\n'))
      return true
    })
    // Known peers know each other still.
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
    await restart(SHOP, 'backend', 'frontend')
    expect(containersOf(await firstPod(SHOP, 'backend'))).toEqual(['app'])
    expect(await fetchFrom(SHOP, 'frontend', url())).toMatch(/^backend-/)
  })
})
