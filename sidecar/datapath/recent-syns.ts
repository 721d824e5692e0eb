/** SYNs that this Pod's applications sent lately. */
import { MAXIMUM_OPTIONS_BYTES, type Packet, TCP_HEADER_BYTES } from '../packet/decode.ts'
import { readWindowScale } from '../packet/options.ts'
import { createBoundedMap } from './bounded-map.ts'

export interface RecentSyn {
  isn: number
  /** How often this SYN was seen, the first included. */
  sent: number
  /** Bytes of the frame that it was sent with, or 0. */
  frameBytes: number
  released: boolean
  /** Its TCP options and window, for a plain copy. */
  readonly options: Buffer
  optionsBytes: number
  window: number
  /** The shift of its window scale option. */
  windowScale: number
  /** SYN-ACKs that came after the one that released the connection. */
  repeatedSynAcks: number
}

export interface RecentSyns {
  /** Notes a SYN and returns its record; a new sequence number is a new connection on the same tuple. */
  note(key: string, isn: number): RecentSyn
  find(key: string): RecentSyn | undefined
}

/** Keeps the last `capacity` tuples, the oldest forgotten first: its record then serves the new one. */
export function createRecentSyns(capacity: number): RecentSyns {
  const byKey = createBoundedMap<string, RecentSyn>(capacity)
  let spare: RecentSyn | undefined
  return {
    find: (key) => byKey.get(key),
    note(key, isn) {
      const known = byKey.get(key)
      if (known && known.isn === isn) {
        known.sent++
        return known
      }
      if (known) byKey.delete(key)
      const syn = known ?? spare ?? createRecentSyn()
      if (syn === spare) spare = undefined
      syn.isn = isn
      syn.sent = 1
      syn.frameBytes = 0
      syn.released = false
      syn.optionsBytes = 0
      syn.window = 0
      syn.windowScale = 0
      syn.repeatedSynAcks = 0
      spare = byKey.set(key, syn) ?? spare
      return syn
    },
  }
}

function createRecentSyn(): RecentSyn {
  return {
    isn: 0,
    sent: 0,
    frameBytes: 0,
    released: false,
    options: Buffer.alloc(MAXIMUM_OPTIONS_BYTES),
    optionsBytes: 0,
    window: 0,
    windowScale: 0,
    repeatedSynAcks: 0,
  }
}

/** Keeps what a plain copy of the SYN needs, from the packet as it is sent with a frame of `frameBytes`. */
export function noteFrame(syn: RecentSyn, sent: Buffer, packet: Packet, frameBytes: number): void {
  syn.frameBytes = frameBytes
  syn.window = packet.window
  syn.windowScale = readWindowScale(sent, packet)
  syn.optionsBytes = sent.copy(syn.options, 0, packet.headerBytes + TCP_HEADER_BYTES, packet.payloadOffset)
}
