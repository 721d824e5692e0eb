/** SYNs that this Pod's applications sent lately. */
import { MAXIMUM_OPTIONS_BYTES, type Packet, TCP_HEADER_BYTES } from '../packet/decode.ts'
import { readWindowScale } from '../packet/options.ts'
import type { ConnectionKey } from './connection-key.ts'
import type { HashSeed } from './keyed-hash.ts'
import { createSlotRing } from './slot-index.ts'

export interface RecentSyn {
  readonly isn: number
  /** How often this SYN was seen, the first included. */
  readonly sent: number
  released: boolean
  /** Bytes of the frame that it was sent with, or 0. */
  readonly frameBytes: number
  readonly window: number
  /** The shift of its window scale option. */
  readonly windowScale: number
  /** SYN-ACKs that came after the one that released the connection. */
  repeatedSynAcks: number
  /** Its TCP options, for a plain copy. */
  options(): Buffer
  /** Keeps what a plain copy of the SYN needs, from the packet as it is sent with a frame of `frameBytes`. */
  noteFrame(sent: Buffer, packet: Packet, frameBytes: number): void
}

/** One object shows whichever SYN was noted or found last: it is valid until the next call of either. */
export interface RecentSyns {
  /** Notes a SYN and returns its record; a new sequence number is a new connection on the same tuple. */
  note(tuple: ConnectionKey, isn: number): RecentSyn
  find(tuple: ConnectionKey): RecentSyn | undefined
}

// A record's numbers, as words, and the options behind them.
const ISN = 0
const SENT = 1
const RELEASED = 2
const FRAME_BYTES = 3
const WINDOW = 4
const WINDOW_SCALE = 5
const REPEATED_SYN_ACKS = 6
const OPTIONS_BYTES = 7
const OPTIONS = 8
const RECORD_WORDS = OPTIONS + MAXIMUM_OPTIONS_BYTES / 4

/** Keeps the last `capacity` SYNs, the oldest forgotten first. */
export function createRecentSyns(capacity: number, seed: HashSeed): RecentSyns {
  const ring = createSlotRing(capacity, seed)
  const words = new Uint32Array(capacity * RECORD_WORDS)
  const bytes = Buffer.from(words.buffer)
  let at = 0

  const shown: RecentSyn = {
    get isn() {
      return words[at + ISN] as number
    },
    get sent() {
      return words[at + SENT] as number
    },
    get released() {
      return words[at + RELEASED] === 1
    },
    set released(value) {
      words[at + RELEASED] = value ? 1 : 0
    },
    get frameBytes() {
      return words[at + FRAME_BYTES] as number
    },
    get window() {
      return words[at + WINDOW] as number
    },
    get windowScale() {
      return words[at + WINDOW_SCALE] as number
    },
    get repeatedSynAcks() {
      return words[at + REPEATED_SYN_ACKS] as number
    },
    set repeatedSynAcks(value) {
      words[at + REPEATED_SYN_ACKS] = value
    },
    options: () => bytes.subarray((at + OPTIONS) * 4, (at + OPTIONS) * 4 + (words[at + OPTIONS_BYTES] as number)),
    noteFrame(sent, packet, frameBytes) {
      words[at + FRAME_BYTES] = frameBytes
      words[at + WINDOW] = packet.window
      words[at + WINDOW_SCALE] = readWindowScale(sent, packet)
      const optionsAt = packet.headerBytes + TCP_HEADER_BYTES
      words[at + OPTIONS_BYTES] = sent.copy(bytes, (at + OPTIONS) * 4, optionsAt, packet.payloadOffset)
    },
  }

  function show(slot: number): RecentSyn {
    at = slot * RECORD_WORDS
    return shown
  }

  return {
    find(tuple) {
      const slot = ring.find(tuple)
      return slot === -1 ? undefined : show(slot)
    },
    note(tuple, isn) {
      const known = ring.find(tuple)
      if (known !== -1) show(known)
      if (known === -1 || words[at + ISN] !== isn) {
        show(ring.claim(tuple))
        words.fill(0, at, at + OPTIONS)
        words[at + ISN] = isn
      }
      words[at + SENT] = (words[at + SENT] as number) + 1
      return shown
    },
  }
}
