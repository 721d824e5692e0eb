/**
 * How full the kernel's table of connections is. Where it is full the kernel drops what would be a new connection before
 * any rule sees it: nobody gets in, and nothing but the table's own numbers says why.
 */
import { readFileSync } from 'node:fs'
import type { LogSink } from './log.ts'

export interface ConntrackRoom {
  /** Entries of this network namespace. */
  readonly entries: number
  /** The machine's limit for each namespace. */
  readonly maximum: number
}

export interface ConntrackRoomOptions {
  readonly intervalMs: number
  readonly onRoom: (room: ConntrackRoom) => void
  readonly log: Pick<LogSink, 'info' | 'warn'>
  /** Undefined where the kernel does not tell. */
  readonly read?: () => ConntrackRoom | undefined
}

/** From this share on it is told, and below the other that it is over. */
const SHORT_OF_ROOM = 0.9
const ROOM_AGAIN = 0.8
const FOLDER = '/proc/sys/net/netfilter'

/** Looks at once and then at the interval. Returns a function that ends it. */
export function watchConntrackRoom(options: ConntrackRoomOptions): () => void {
  const { log, onRoom, read = readConntrackRoom } = options
  let isShort = false

  function look(): void {
    const room = read()
    if (room === undefined) return
    onRoom(room)
    const share = room.entries / room.maximum
    if (!isShort && share >= SHORT_OF_ROOM) {
      log.warn({ ...room }, 'the table of connections is nearly full: the kernel drops new ones (nf_conntrack_max)')
    } else if (isShort && share < ROOM_AGAIN) {
      log.info({ ...room }, 'the table of connections has room again')
    } else return
    isShort = !isShort
  }

  look()
  const timer = setInterval(look, options.intervalMs)
  return () => clearInterval(timer)
}

/** What the kernel says for this network namespace. Never throws. */
export function readConntrackRoom(): ConntrackRoom | undefined {
  try {
    const number = (name: string): number => Number(readFileSync(`${FOLDER}/${name}`, 'utf8'))
    const [entries, maximum] = [number('nf_conntrack_count'), number('nf_conntrack_max')]
    return maximum > 0 && entries >= 0 ? { entries, maximum } : undefined
  } catch {
    return undefined
  }
}
