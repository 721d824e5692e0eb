import { afterEach, expect, it, jest } from '@jest/globals'
import { type ConntrackRoom, readConntrackRoom, watchConntrackRoom } from '../../../sidecar/control/conntrack-room.ts'
import { createKeptLog } from './fake-issuer.ts'

afterEach(() => void jest.useRealTimers())

it('says once that the table is nearly full, and once that it has room again', () => {
  jest.useFakeTimers()
  const { log, lines } = createKeptLog()
  const rooms: ConntrackRoom[] = []
  let entries = 10
  const stop = watchConntrackRoom({
    intervalMs: 1_000,
    onRoom: (room) => rooms.push(room),
    log,
    read: () => (entries < 0 ? undefined : { entries, maximum: 100 }),
  })
  for (const next of [89, 90, 100, 85, 79, 10, -1]) {
    entries = next
    jest.advanceTimersByTime(1_000)
  }
  stop()
  entries = 99
  jest.advanceTimersByTime(5_000)
  expect(rooms.map((room) => room.entries)).toEqual([10, 89, 90, 100, 85, 79, 10])
  expect(lines).toEqual([
    {
      level: 'warn',
      entries: 90,
      maximum: 100,
      msg: 'the table of connections is nearly full: the kernel drops new ones (nf_conntrack_max)',
    },
    { level: 'info', entries: 79, maximum: 100, msg: 'the table of connections has room again' },
  ])
})

it("reads the kernel's own numbers", () => {
  const room = readConntrackRoom()
  expect(room?.maximum).toBeGreaterThan(0)
  expect(room?.entries).toBeLessThanOrEqual(room?.maximum ?? 0)
})
