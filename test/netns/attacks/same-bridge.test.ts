/** A Pod without a sidecar, with every power over its own network, beside guarded ones on one bridge. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import { until } from '../../contract/stage.ts'
import { putPolicy } from '../../lab/objects.ts'
import { createField, type Field, type Outcome, type Peer, PORT } from './attacker.ts'

const PATIENCE_SECONDS = 4

let field: Field
let client: Peer
let server: Peer
/** Without a sidecar. */
let open: Peer
let mallory: Peer
/** Guarded, and nobody's business here: `client` may not reach it. */
let other: Peer
let nextPort = 42_000

const NOTHING = { accepted: 0, text: '' }
const to = (app: string) => [{ podSelector: { matchLabels: { app } } }]

beforeAll(async () => {
  field = await createField()
  putPolicy(field.lab, 'server', {
    podSelector: { matchLabels: { app: 'server' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: to('client') }],
  })
  putPolicy(field.lab, 'client', {
    podSelector: { matchLabels: { app: 'client' } },
    policyTypes: ['Egress'],
    egress: [{ to: to('server') }],
  })
  ;[client, server, other, open, mallory] = await Promise.all([
    field.peer('guarded', 'client'),
    field.peer('guarded', 'server'),
    field.peer('guarded', 'other'),
    field.peer('plain', 'open'),
    field.peer('plain', 'mallory'),
  ])
  for (const peer of [server, other, open, mallory]) await peer.ask({ do: 'listen', port: PORT })
}, 60_000)
afterAll(async () => await field?.stop())

const inside = (peer: Peer, ...command: readonly string[]) =>
  runCommand('ip', ['netns', 'exec', peer.pod.network.netns, ...command])
const logOf = ({ pod }: Peer) => pod.logs.get('synguard-sidecar')?.text() ?? ''
const heardBy = (peer: Peer, from: number) => peer.ask({ do: 'heard', from })

async function opens(from: Peer, address: string): Promise<{ readonly outcome: Outcome; readonly port: number }> {
  const port = nextPort++
  const outcome = await from.ask({
    do: 'open',
    name: String(port),
    address,
    port: PORT,
    from: port,
    seconds: PATIENCE_SECONDS,
  })
  await from.ask({ do: 'reset', name: String(port) })
  return { outcome, port }
}

describe("a guarded Pod's address, taken by its neighbour while it is away", () => {
  it('opens nothing: whoever has it must show its WIT; a Pod without a sidecar is taken in', async () => {
    expect((await opens(client, server.address)).outcome).toEqual({ opened: true })
    await inside(client, 'ip', 'link', 'set', 'eth0', 'down')
    await inside(mallory, 'ip', 'addr', 'add', `${client.address}/32`, 'dev', 'eth0')
    for (const target of [server, open]) {
      await inside(mallory, 'ip', 'route', 'add', `${target.address}/32`, 'dev', 'eth0', 'src', client.address)
      // Who is asked for the address answers with his own.
      await inside(target, 'ip', 'neigh', 'flush', 'dev', 'eth0')
    }
    try {
      expect((await opens(mallory, open.address)).outcome).toEqual({ opened: true })
      const { outcome, port } = await opens(mallory, server.address)
      expect(outcome).toEqual({ error: 'timeout' })
      expect(await heardBy(server, port)).toEqual(NOTHING)
      await until('the refusal in the log', async () =>
        /"refusal":"no-wit".*"peer":"guarded\/client"/.test(logOf(server)),
      )
    } finally {
      await inside(mallory, 'ip', 'addr', 'del', `${client.address}/32`, 'dev', 'eth0')
      await inside(client, 'ip', 'link', 'set', 'eth0', 'up')
      await inside(client, 'ip', 'route', 'replace', 'default', 'via', '10.244.0.1', 'dev', 'eth0')
      await inside(server, 'ip', 'neigh', 'flush', 'dev', 'eth0')
    }
    expect((await opens(client, server.address)).outcome).toEqual({ opened: true })
  }, 30_000)
})

describe('a Service of guarded Pods, for which somebody else answers', () => {
  it.each([
    ['without a sidecar: whoever stands for it must show a WIT', () => mallory, /"refusal":"no-wit"/],
    [
      'with a WIT of its own: it is judged as who it is',
      () => other,
      /"refusal":"policy".*"peer":"guarded\/other".*"guarded\/client"/,
    ],
  ])(
    '%s',
    async (_who, whom, refusal) => {
      const service = await field.lab.putService({
        metadata: { namespace: 'guarded', name: 'server' },
        spec: { selector: { app: 'server' }, ports: [{ port: PORT, targetPort: PORT }] },
      })
      const address = service.spec?.clusterIP ?? ''
      expect((await opens(client, address)).outcome).toEqual({ opened: true })
      const impostor = whom()
      const nat = (verb: '-I' | '-D') =>
        field.onNode(
          ...['iptables', '-t', 'nat', verb, 'PREROUTING', '-s', client.address, '-d', address, '-p', 'tcp'],
          ...['--dport', String(PORT), '-j', 'DNAT', '--to-destination', `${impostor.address}:${PORT}`],
        )
      await nat('-I')
      try {
        const { outcome, port } = await opens(client, address)
        expect(outcome).toEqual({ error: 'ECONNREFUSED' })
        expect(await heardBy(impostor, port)).toEqual(NOTHING)
        await until('the refusal in the log', async () => refusal.test(logOf(client)))
      } finally {
        await nat('-D')
      }
      expect((await opens(client, address)).outcome).toEqual({ opened: true })
    },
    30_000,
  )
})
