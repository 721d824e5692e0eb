/** What the kernel keeps for a guarded Pod is used up: its queue of packets, and its table of connections. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf, allowOnly } from '../../lab/objects.ts'
import { createField, type Field, logOf, pause, print, signalSidecar, until } from './field.ts'

let field: Field
let server: RunningPod
let known: RunningPod
let stranger: RunningPod
let attacker: RunningPod
let frame: string

beforeAll(async () => {
  field = await createField()
  allowOnly(field.lab, ['known'])
  server = await field.runPod('guarded', 'server')
  await field.rig.serveLoad(server)
  known = await field.runPod('guarded', 'known')
  stranger = await field.runPod('guarded', 'stranger')
  attacker = await field.runPod('plain', 'attacker')
  await field.pace(known, server, 10, 1)
  frame = await field.captureFrame(known, attacker)
}, 60_000)
afterAll(async () => await field?.stop())

const inServer = (...command: readonly string[]) =>
  runCommand('ip', ['netns', 'exec', server.network.netns, ...command])

describe('a queue that overflows while the sidecar stands still', () => {
  it.each(['plain', 'own'] as const)(
    'of SYNs (%s): counted, over by itself, and nobody gets in',
    async (kind) => {
      const before = await field.metrics(server)
      signalSidecar(server, 'SIGSTOP')
      let denied: Promise<{ succeeded: number }>
      let allowed: Promise<{ succeeded: number; slowest: number }>
      let sent: number
      let queue: string
      try {
        const flood = { kind, source: '10.245.9.9', count: 1, packetsPerSecond: 10_000, seconds: 3, frame }
        const flooding = field.flood(attacker, server, flood)
        await pause(1_000)
        denied = field.pace(stranger, server, 20, 20, 5)
        allowed = field.pace(known, server, 10, 10, 30)
        sent = await flooding
        queue = await inServer('cat', '/proc/net/netfilter/nfnetlink_queue')
      } finally {
        signalSidecar(server, 'SIGCONT')
      }
      const { succeeded, slowest } = await allowed
      const after = await field.metrics(server)
      const overflow = after.get('queue_overflow_total') - before.get('queue_overflow_total')
      // Columns: queue, port, packets waiting, mode, range, dropped for want of a place, and of room in the socket.
      const [, , , , , withoutPlace = '', withoutRoom = ''] = queue.trim().split('\n')[0]?.trim().split(/\s+/) ?? []
      print(
        `queue overflow (${kind}): sent ${sent}, counted ${overflow}, kernel: ${withoutPlace} without a place in the queue,`,
        `${withoutRoom} without room in the socket; honest ${succeeded} of 10, slowest ${slowest} ms`,
      )
      expect(overflow).toBeGreaterThan(sent / 2)
      expect(Number(withoutPlace)).toBe(0)
      expect((await denied).succeeded).toBe(0)
      expect(succeeded).toBe(10)
      expect(await field.pace(known, server, 100, 100)).toMatchObject({ succeeded: 100 })
    },
    90_000,
  )
})

describe('a table of connections without room', () => {
  it('keeps all but everybody out, says so, lets in nobody denied, and once there is room those come in whom policy allows', async () => {
    const echo = await field.rig.streams(server, 'server', '7300')
    const streams = await field.rig.streams(known, 'client', addressOf(server), '7300', '5')
    const maximum = Number(await inServer('cat', '/proc/sys/net/netfilter/nf_conntrack_max'))
    const { entries, empty } = await field.fillConntrack(server, maximum + 1_000)
    try {
      print(`table of connections: ${entries} entries of ${maximum}`)
      expect(entries).toBeGreaterThan(maximum - 10)
      const [allowed, denied] = await Promise.all([
        field.pace(known, server, 10, 20, 4),
        field.pace(stranger, server, 10, 20, 4),
      ])
      // Now and then an entry expires, and a SYN is quicker than the next entry.
      expect(allowed.succeeded).toBeLessThan(10)
      expect(denied.succeeded).toBe(0)
      // In its log: whoever asks for metrics needs an entry for that too.
      await until('the warning', 30_000, () => logOf(server).includes('the table of connections is nearly full'))
      expect(logOf(server)).toContain(`"maximum":${maximum},"msg":"the table of connections is nearly full`)
      // What runs already is in the table, and goes on.
      expect(await streams.ask('report')).toMatchObject({ open: 5, ended: 0, wrong: 0 })
    } finally {
      await empty()
    }
    const [allowed, denied] = await Promise.all([
      field.pace(known, server, 50, 100),
      field.pace(stranger, server, 50, 100, 5),
    ])
    print(`with room again: honest ${JSON.stringify(allowed)}, denied that succeeded ${denied.succeeded}`)
    expect([allowed.succeeded, denied.succeeded]).toEqual([100, 0])
    expect((await field.metrics(server)).get('conntrack_maximum')).toBe(maximum)
    await until('the all-clear', 30_000, () => logOf(server).includes('the table of connections has room again'))
    // Their entries went with the others: they were judged again.
    expect(await streams.ask('report')).toMatchObject({ open: 5, ended: 0, wrong: 0 })
    expect(await echo.ask('report')).toEqual({ [addressOf(known)]: 5 })
  }, 120_000)
})
