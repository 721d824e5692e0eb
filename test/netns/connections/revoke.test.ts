/** What a revocation does to a Pod with real sidecars around it, and what its undo brings back. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { isReached, type Target } from '../../../lab/agent-protocol.ts'
import { createLab, type Lab } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'

const TCP = 8080
const PROBED = 8081
const UDP = 5353

let lab: Lab
const pods: Record<string, RunningPod> = {}

async function runPod(namespace: string, name: string): Promise<void> {
  const ports = [
    { containerPort: TCP, protocol: 'TCP' },
    { containerPort: PROBED, protocol: 'TCP' },
    { containerPort: UDP, protocol: 'UDP' },
  ]
  const readinessProbe = { tcpSocket: { port: PROBED } }
  const spec = { containers: [{ name: 'app', image: 'app', ports, readinessProbe }] }
  const metadata = { namespace, name, labels: { app: name } }
  pods[name] = await lab.runPod(await lab.admitPod({ apiVersion: 'v1', kind: 'Pod', metadata, spec }))
}

beforeAll(async () => {
  lab = await createLab()
  await lab.putNamespace({ metadata: { name: 'guarded', labels: { 'synguard.io/inject': 'enabled' } } })
  await lab.putNamespace({ metadata: { name: 'plain' } })
  // No policy at all: what is refused here is refused for the revocation.
  await Promise.all([runPod('guarded', 'suspect'), runPod('guarded', 'server'), runPod('plain', 'plain')])
}, 120_000)
afterAll(async () => await lab?.stop())

const find = (name: string): RunningPod => {
  const pod = pods[name]
  if (pod === undefined) throw new Error(`no Pod ${name}`)
  return pod
}
const targetOf = (name: string, port: number, protocol: Target['protocol'] = 'TCP'): Target => ({
  protocol,
  address: find(name).network.addresses[0] ?? '',
  port,
})
async function reaches(from: string, to: string, protocol: Target['protocol'] = 'TCP'): Promise<boolean> {
  const target = targetOf(to, protocol === 'TCP' ? TCP : UDP, protocol)
  return isReached(await find(from).agent.ask({ do: 'reach', target, timeoutMs: 3_000 }))
}
/** Who of those that deal with the suspect gets through, each way and by each protocol. */
async function reachedPairs(): Promise<string[]> {
  const found: string[] = []
  for (const other of ['server', 'plain']) {
    for (const [from, to] of [
      ['suspect', other],
      [other, 'suspect'],
    ] as const) {
      for (const protocol of ['TCP', 'UDP'] as const) {
        if (await reaches(from, to, protocol)) found.push(`${from} ${to} ${protocol}`)
      }
    }
  }
  return found
}
async function readiness(): Promise<string> {
  const request = { do: 'httpGet', address: '127.0.0.1', port: 15900, path: '/readyz', timeoutMs: 5_000 } as const
  const { status, body } = await find('suspect').agent.ask(request)
  return `${status} ${body}`
}
async function until(what: string, holds: () => Promise<boolean>, milliseconds: number): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`)
    await new Promise((done) => setTimeout(done, 200))
  }
}

const ALL = [
  ...['suspect server TCP', 'suspect server UDP', 'server suspect TCP', 'server suspect UDP'],
  ...['suspect plain TCP', 'suspect plain UDP', 'plain suspect TCP', 'plain suspect UDP'],
]

describe('a Pod that an operator revokes', () => {
  const uid = () => find('suspect').pod.metadata?.uid ?? ''

  it('loses what runs, with guarded and other peers, and gets nothing new', async () => {
    expect(await reachedPairs()).toEqual(ALL)
    const open = (from: string, to: string) =>
      find(from).agent.ask({ do: 'open', target: targetOf(to, TCP), connection: `${from} ${to}` })
    const running = [
      ['suspect', 'server'],
      ['server', 'suspect'],
      ['suspect', 'plain'],
      ['plain', 'suspect'],
      ['server', 'plain'],
    ] as const
    for (const [from, to] of running) expect(await open(from, to)).toMatchObject({ outcome: 'answered' })
    const revokedAt = Date.now()
    await lab.controlPlane.requestVoid(uid(), 'revoke')
    const ends = await Promise.all(
      running.slice(0, 4).map(async ([from, to]) => {
        const connection = `${from} ${to}`
        const { how } = await find(from).agent.ask({ do: 'ended', connection, timeoutMs: 20_000 })
        return [connection, how, Date.now() - revokedAt] as const
      }),
    )
    process.stdout.write(`ended after the revocation: ${ends.map((end) => `${end.join(' ')} ms`).join(', ')}\n`)
    expect(ends.filter(([, how]) => !/^ECONN(RESET|ABORTED)$/.test(how))).toEqual([])
    expect(await reachedPairs()).toEqual([])
    // What others have with each other goes on.
    expect(await reaches('server', 'plain')).toBe(true)
    const untouched = find('server').agent.ask({ do: 'ended', connection: 'server plain', timeoutMs: 500 })
    await expect(untouched).rejects.toThrow('still stands')
  }, 120_000)

  it('is not ready, so that no Service leads to it; the kubelet still reaches its probes', async () => {
    expect(await readiness()).toMatch(/^503 .*revoked by an operator/s)
    const probe = await lab.node.ask({ do: 'reach', target: targetOf('suspect', PROBED), timeoutMs: 3_000 })
    expect(isReached(probe)).toBe(true)
  })

  it('has all of it back once the revocation is undone', async () => {
    await lab.controlPlane.requestVoid(uid(), 'restore')
    await until('an identity', async () => (await readiness()).startsWith('200'), 60_000)
    await until('everything', async () => (await reachedPairs()).length === ALL.length, 60_000)
  }, 150_000)
})
