import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Container, V1PodSpec } from '@kubernetes/client-node'
import type { Reached } from '../../../lab/agent-protocol.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'

let lab: Lab
beforeAll(async () => {
  lab = await createLab()
  await lab.putNamespace({ metadata: { name: 'n', labels: {} } })
})
afterAll(async () => await lab?.stop())

const runPod = async (name: string, spec: Partial<V1PodSpec>, labels: Record<string, string> = {}) =>
  await lab.runPod(
    await lab.admitPod({
      metadata: { namespace: 'n', name, labels, annotations: {} },
      spec: { containers: [], ...spec },
    }),
  )

const container = (fields: Partial<V1Container>): V1Container => ({ name: 'c', image: 'x', ...fields })
const shell = (script: string): Partial<V1Container> => ({ command: ['sh', '-c', script] })

/** What a container that ran to its end wrote. */
async function outputOf(name: string, fields: Partial<V1Container>, spec: Partial<V1PodSpec> = {}): Promise<string> {
  const pod = await runPod(name, { restartPolicy: 'Never', containers: [container(fields)], ...spec })
  await pod.containers.get('c')?.ended
  const text = pod.logs.get('c')?.text() ?? ''
  await lab.stopPod(`n/${name}`)
  return text
}

describe('Services', () => {
  it('a cluster address reaches every ready Pod, its own client too, over both families and both protocols', async () => {
    const ports = [
      { port: 8080, targetPort: 'web', protocol: 'TCP' },
      { name: 'dns', port: 53, targetPort: 5353, protocol: 'UDP' },
    ]
    const service = await lab.putService({
      metadata: { namespace: 'n', name: 's' },
      spec: { selector: { app: 's' }, ports },
    })
    const served = [
      { name: 'web', containerPort: 80, protocol: 'TCP' },
      { name: 'dns', containerPort: 5353, protocol: 'UDP' },
    ]
    const [first] = await Promise.all(
      ['s-0', 's-1'].map((name) => runPod(name, { containers: [container({ ports: served })] }, { app: 's' })),
    )
    const agents = [first?.agent ?? lab.node, lab.external, lab.node]
    for (const agent of agents) {
      for (const address of service.spec?.clusterIPs ?? []) {
        for (const [protocol, port] of [['TCP', 8080] as const, ['UDP', 53] as const]) {
          const answers = new Set<string | undefined>()
          for (let attempt = 0; attempt < 40 && answers.size < 2; attempt++) {
            const target = { protocol, address, port }
            const reached: Reached = await agent.ask({ do: 'reach', target, timeoutMs: 2000 })
            answers.add(reached.answer ?? reached.outcome)
          }
          expect([...answers].sort()).toEqual(['s-0', 's-1'])
        }
      }
    }
    await Promise.all(['n/s-0', 'n/s-1'].map(lab.stopPod))
  })

  it('a Service without a ready Pod refuses at once', async () => {
    const service = await lab.putService({
      metadata: { namespace: 'n', name: 'empty' },
      spec: { selector: { app: 'nobody' }, ports: [{ port: 80 }] },
    })
    const target = { protocol: 'TCP', address: service.spec?.clusterIP ?? '', port: 80 } as const
    expect(await lab.node.ask({ do: 'reach', target, timeoutMs: 2000 })).toMatchObject({ outcome: 'refused' })
  })
})

describe("a container's surroundings", () => {
  const mount = (name: string, mountPath: string, readOnly = false) => ({ name, mountPath, readOnly })

  it('volumes stand at their mountPaths, also below directories of the machine, which stays untouched', async () => {
    const sources = [
      { serviceAccountToken: { path: 'token', audience: 'synguard' } },
      { configMap: { name: 'synguard-ca' } },
    ]
    const volumes = [
      { name: 'projected', projected: { sources } },
      { name: 'state', emptyDir: {} },
    ]
    const output = await outputOf(
      'volumes',
      {
        ...shell(
          'ls /var/run/synguard/credentials /etc/of-the-lab; touch /data/x /var/run/synguard/state/y; ls /data; touch /etc/of-the-lab/z || echo read-only; touch /usr/z || echo machine is read-only',
        ),
        volumeMounts: [
          mount('projected', '/var/run/synguard/credentials', true),
          mount('projected', '/etc/of-the-lab', true),
          mount('state', '/var/run/synguard/state'),
          mount('state', '/data'),
        ],
      },
      { volumes },
    )
    const lines = output.split('\n').filter((line) => line !== '' && !line.startsWith('touch:'))
    const credentials = ['ca.crt', 'token']
    expect(lines.filter((line) => !line.startsWith('/'))).toEqual([
      ...credentials,
      ...credentials,
      ...['x', 'y', 'read-only', 'machine is read-only'],
    ])
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(lab.run.directory)
  })

  const status = "grep -E '^(Uid|Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs)' /proc/self/status"
  const parse = (text: string) =>
    Object.fromEntries(
      text
        .trim()
        .split('\n')
        .map((line) => line.split(/:\s+/).map((part) => part.split('\t')[0] ?? '')),
    )

  it('an ordinary container is root with the default powers, and NET_RAW is gone where it is dropped', async () => {
    const all = BigInt(`0x${parse(await outputOf('root', shell(status))).CapEff}`)
    const securityContext = { capabilities: { drop: ['NET_RAW'] } }
    const some = parse(await outputOf('dropped', { ...shell(status), securityContext }))
    const netRaw = 1n << 13n
    expect([all & netRaw, BigInt(`0x${some.CapEff}`), BigInt(`0x${some.CapBnd}`)]).toEqual([
      netRaw,
      all & ~netRaw,
      all & ~netRaw,
    ])
  })

  it('another user has none of them, and no way to get them where escalation is not allowed', async () => {
    const securityContext = {
      runAsUser: 1234,
      runAsGroup: 4321,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
    }
    expect(parse(await outputOf('user', { ...shell(status), securityContext }))).toEqual({
      Uid: '1234',
      CapPrm: '0000000000000000',
      CapEff: '0000000000000000',
      CapBnd: '0000000000000000',
      CapAmb: '0000000000000000',
      NoNewPrivs: '1',
    })
  })
})

describe('the life of a Pod', () => {
  it('init containers run in their order, each to its end, before the containers', async () => {
    const step = (name: string) => ({
      name,
      image: 'x',
      ...shell(`echo ${name} >> /d/log`),
      volumeMounts: [{ name: 'd', mountPath: '/d' }],
    })
    const output = await outputOf(
      'ordered',
      { ...shell('cat /d/log'), volumeMounts: [{ name: 'd', mountPath: '/d' }] },
      { initContainers: [step('one'), step('two')], volumes: [{ name: 'd', emptyDir: {} }] },
    )
    expect(output).toBe('one\ntwo\n')
  })

  it('an init container that fails stops the Pod and shows its log; nothing of the Pod stays', async () => {
    const initContainers = [{ name: 'bad', image: 'x', ...shell('echo the reason; exit 3') }]
    await expect(runPod('failing', { initContainers, containers: [container({})] })).rejects.toThrow(
      'Pod n/failing: container bad failed (status 3); its log:\nthe reason',
    )
    expect([...lab.pods.keys()]).toEqual([])
  })

  it('a container that dies is started again', async () => {
    const pod = await runPod('dying', { containers: [container(shell('echo run; sleep 0.05; exit 1'))] })
    const deadline = Date.now() + 10_000
    while ((pod.containers.get('c')?.restarts() ?? 0) < 2 && Date.now() < deadline) {
      await new Promise((done) => setTimeout(done, 50))
    }
    expect(pod.logs.get('c')?.text().startsWith('run\nrun\n')).toBe(true)
    await lab.stopPod('n/dying')
  })

  it('a Pod waits until its command listens on the declared ports', async () => {
    const script = "const s=require('net').createServer(c=>c.end('up'));setTimeout(()=>s.listen(7000),300)"
    const command = [process.execPath, '-e', script]
    const pod = await runPod('slow', { containers: [container({ command, ports: [{ containerPort: 7000 }] })] })
    const target = { protocol: 'TCP', address: pod.network.addresses[0] ?? '', port: 7000 } as const
    expect(await lab.node.ask({ do: 'reach', target, timeoutMs: 2000 })).toMatchObject({
      outcome: 'answered',
      answer: 'up',
    })
    await lab.stopPod('n/slow')
  })
})
