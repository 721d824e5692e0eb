/** The kernel's queue of packets for a guarded Pod is used up. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { runCommand } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { allowOnly } from '../connections/rig.ts'
import { createField, type Field, pause, print, signalSidecar } from './field.ts'

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
