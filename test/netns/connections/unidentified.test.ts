/** Peers that show no WIT, as the cluster changes around their address: what it says of them at the moment counts. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import type { Agent } from '../../../lab/agent-client.ts'
import { isReached } from '../../../lab/agent-protocol.ts'
import { runCommand } from '../../../lab/command.ts'
import { LAB_ISSUER } from '../../../lab/injection.ts'
import type { Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { HINT_UNKNOWN_PROBE } from '../../../sidecar/datapath/denial.ts'
import { addressOf, createTestLab, putPolicy } from '../../lab/objects.ts'

const PORT = 8080
const PROBED = 8081
/** Ten times what a change of labels may take. */
const SETTLE_MILLISECONDS = 20_000
const REACH_MILLISECONDS = 2_500
/** In the block that the server's policy names. */
const IN_BLOCK = '10.244.240.7'
const FRIEND = { app: 'friend', friend: 'yes' }

let lab: Lab
let server: RunningPod
/** Matches peers by their WIT alone. */
let strict: RunningPod
let friend: RunningPod
let mute: RunningPod

async function admit(
  namespace: string,
  name: string,
  labels: Record<string, string>,
  rest: { annotations?: Record<string, string>; address?: string } = {},
): Promise<V1Pod> {
  const ports = [PORT, PROBED].map((containerPort) => ({ containerPort }))
  const { annotations = {}, address } = rest
  return await lab.admitPod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace, name, labels, annotations },
    spec: { containers: [{ name: 'app', image: 'app', ports, readinessProbe: { tcpSocket: { port: PROBED } } }] },
    ...(address !== undefined && { status: { podIPs: [{ ip: address }] } }),
  })
}

const runPod = async (...parameters: Parameters<typeof admit>): Promise<RunningPod> =>
  await lab.runPod(await admit(...parameters))

beforeAll(async () => {
  lab = await createTestLab()
  for (const app of ['server', 'strict']) {
    putPolicy(lab, app, {
      podSelector: { matchLabels: { app } },
      policyTypes: ['Ingress'],
      ingress: [
        { from: [{ namespaceSelector: {}, podSelector: { matchLabels: { friend: 'yes' } } }], ports: [{ port: PORT }] },
        { from: [{ ipBlock: { cidr: '10.244.240.0/24' } }], ports: [{ port: PORT }] },
      ],
    })
  }
  ;[server, strict, friend, mute] = await Promise.all([
    runPod('guarded', 'server', { app: 'server' }),
    runPod('guarded', 'strict', { app: 'strict' }, { annotations: { 'synguard.io/peers-without-identity': 'deny' } }),
    runPod('plain', 'friend', FRIEND),
    runPod('guarded', 'mute', { app: 'mute', friend: 'yes' }),
  ])
}, 60_000)
afterAll(async () => await lab?.stop())

async function reaches(from: { readonly agent: Agent }, to = server, port = PORT): Promise<boolean> {
  const target = { protocol: 'TCP', address: addressOf(to), port } as const
  return isReached(await from.agent.ask({ do: 'reach', target, timeoutMs: REACH_MILLISECONDS }))
}

/** Milliseconds until the condition holds. */
async function until(holds: () => Promise<boolean> | boolean): Promise<number> {
  const begun = performance.now()
  while (!(await holds())) {
    if (performance.now() - begun > SETTLE_MILLISECONDS) throw new Error(`not within ${SETTLE_MILLISECONDS} ms`)
    await new Promise((done) => setTimeout(done, 20))
  }
  return performance.now() - begun
}

/** The friend's object as the cluster has it, with something else of its own. */
function friendObject(changes: { phase?: string; hostNetwork?: boolean; name?: string; labels?: object }): V1Pod {
  const { phase = 'Running', hostNetwork = false, name = 'friend', labels = FRIEND } = changes
  const { metadata, spec, status } = friend.pod
  return {
    ...friend.pod,
    metadata: {
      ...metadata,
      name,
      labels: { ...labels },
      uid: name === 'friend' ? (metadata?.uid ?? '') : `uid-${name}`,
    },
    spec: { containers: spec?.containers ?? [], ...spec, ...(hostNetwork && { hostNetwork }) },
    status: { ...status, phase },
  }
}

const put = (object: V1Pod) => lab.controlPlane.put('Pod', object)
const logOf = (pod: RunningPod) => pod.logs.get('synguard-sidecar')?.text() ?? ''

describe('an address whose Pod', () => {
  it.each([
    ['Succeeded', { phase: 'Succeeded' }],
    ['Failed', { phase: 'Failed' }],
    ['is on the host network', { hostNetwork: true }],
  ])('%s matches no selector, and does again once it has a live Pod', async (_what, changes) => {
    await until(() => reaches(friend))
    await put(friendObject(changes))
    await until(async () => !(await reaches(friend)))
    await put(friendObject({}))
    await until(() => reaches(friend))
  })

  it('another one claims too matches no selector while both live', async () => {
    await put(friendObject({ name: 'claimant' }))
    await until(async () => !(await reaches(friend)))
    await lab.controlPlane.delete('Pod', 'claimant', 'plain')
    await until(() => reaches(friend))
  })

  it('is gone, and that another Pod has within the second, is the other one: what ran is ended, what is new refused', async () => {
    const target = { protocol: 'TCP', address: addressOf(server), port: PORT } as const
    expect(isReached(await friend.agent.ask({ do: 'open', target, connection: 'former' }))).toBe(true)
    const begun = performance.now()
    await lab.controlPlane.delete('Pod', 'friend', 'plain')
    await put(friendObject({ name: 'heir', labels: { app: 'heir' } }))
    const written = performance.now() - begun
    const refused = await until(async () => !(await reaches(friend)))
    const ended = await friend.agent.ask({ do: 'ended', connection: 'former', timeoutMs: SETTLE_MILLISECONDS })
    const after = performance.now() - begun
    process.stdout.write(
      `an address reused within ${written.toFixed(0)} ms: refused after ${(written + refused).toFixed(0)} ms, what ran had ended (${ended.how}) after ${after.toFixed(0)}\n`,
    )
    expect(written).toBeLessThan(1_000)
    expect(ended.how).not.toBe('closed')
    await lab.controlPlane.delete('Pod', 'heir', 'plain')
    await put(friendObject({}))
    await until(() => reaches(friend))
  })
})

describe('the setting `deny`', () => {
  it('lets nobody in by labels without a WIT; a guarded Pod with the same labels comes in, and so do blocks of addresses', async () => {
    expect([await reaches(friend), await reaches(friend, strict)]).toEqual([true, false])
    expect(await reaches(mute, strict)).toBe(true)
    const inBlock = await runPod('plain', 'in-block', { app: 'in-block' }, { address: IN_BLOCK })
    expect(await reaches(inBlock, strict)).toBe(true)
    await lab.stopPod('plain/in-block')
  })
})

describe('while the issuer cannot be asked', () => {
  it('an address that nobody told before matches ipBlock alone', async () => {
    const refuse = ['-p', 'tcp', '--dport', String(LAB_ISSUER.port), '-j', 'REJECT', '--reject-with', 'tcp-reset']
    const iptables = (action: '-I' | '-D') =>
      runCommand('ip', ['netns', 'exec', lab.network.node, 'iptables', '-w', action, 'INPUT', ...refuse])
    // The webhook that admits Pods is the issuer's process.
    const admitted = await Promise.all([
      admit('plain', 'late', { app: 'late', friend: 'yes' }),
      admit('plain', 'in-block', { app: 'in-block' }, { address: IN_BLOCK }),
    ])
    await iptables('-I')
    try {
      const [late, inBlock] = await Promise.all(admitted.map(lab.runPod))
      if (late === undefined || inBlock === undefined) throw new Error('they do not run')
      expect([await reaches(late), await reaches(inBlock)]).toEqual([false, true])
      await until(() => logOf(server).includes('"refusal":"peer-unknown"'))
    } finally {
      await iptables('-D')
    }
    await until(async () => {
      const late = lab.pods.get('plain/late')
      return late !== undefined && (await reaches(late))
    })
  }, 90_000)
})

describe('a refusal says', () => {
  it('that a guarded Pod showed no WIT, and which: its labels alone do not let it in', async () => {
    expect(await reaches(mute)).toBe(true)
    for (const table of ['mangle', 'filter']) {
      await runCommand('ip', ['netns', 'exec', mute.network.netns, 'iptables', '-w', '-t', table, '-F'])
    }
    expect(await reaches(mute)).toBe(false)
    await until(() => /"refusal":"no-wit".*"peer":"guarded\/mute"/.test(logOf(server)))
    expect(logOf(server)).toContain('The peer is a guarded Pod and showed no identity')
  })

  it('which setting to make, where a probe of an unknown source is refused; of another port it does not', async () => {
    const external = { agent: lab.external }
    expect([await reaches(external, server, PROBED), await reaches(external, server, PORT)]).toEqual([false, false])
    const hintsOf = (port: number) =>
      logOf(server)
        .split('\n')
        .filter((line) => line.includes(`"destinationPort":${port}`) && line.includes('203.0.113.10'))
        .map((line) => (JSON.parse(line) as { hint?: string }).hint)
    await until(() => hintsOf(PROBED).length > 0 && hintsOf(PORT).length > 0)
    expect(new Set(hintsOf(PROBED))).toEqual(new Set([HINT_UNKNOWN_PROBE]))
    expect(new Set(hintsOf(PORT))).toEqual(new Set([undefined]))
  })
})
