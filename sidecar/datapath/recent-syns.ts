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
  /** Its denial was told: audit tells of a connection once. */
  told: boolean
  /** Seconds since 1970: when it was first seen. */
  readonly openedAt: number
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
  note(tuple: ConnectionKey, isn: number, nowMilliseconds: number): RecentSyn
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
const TOLD = 8
const OPENED_AT = 9
const OPTIONS = 10
const RECORD_WORDS = OPTIONS + MAXIMUM_OPTIONS_BYTES / 4

/** Shows one record of all; a class, as V8 compiles its accessors like fields. */
class ShownSyn implements RecentSyn {
  /** Where the record begins. */
  at = 0
  readonly words: Uint32Array
  private readonly bytes: Buffer

  constructor(capacity: number) {
    this.words = new Uint32Array(capacity * RECORD_WORDS)
    this.bytes = Buffer.from(this.words.buffer)
  }

  get isn(): number {
    return this.words[this.at + ISN] as number
  }

  get sent(): number {
    return this.words[this.at + SENT] as number
  }
  set sent(value: number) {
    this.words[this.at + SENT] = value
  }

  get released(): boolean {
    return this.words[this.at + RELEASED] === 1
  }
  set released(value: boolean) {
    this.words[this.at + RELEASED] = value ? 1 : 0
  }

  get told(): boolean {
    return this.words[this.at + TOLD] === 1
  }
  set told(value: boolean) {
    this.words[this.at + TOLD] = value ? 1 : 0
  }

  get openedAt(): number {
    return this.words[this.at + OPENED_AT] as number
  }

  get frameBytes(): number {
    return this.words[this.at + FRAME_BYTES] as number
  }

  get window(): number {
    return this.words[this.at + WINDOW] as number
  }

  get windowScale(): number {
    return this.words[this.at + WINDOW_SCALE] as number
  }

  get repeatedSynAcks(): number {
    return this.words[this.at + REPEATED_SYN_ACKS] as number
  }
  set repeatedSynAcks(value: number) {
    this.words[this.at + REPEATED_SYN_ACKS] = value
  }

  options(): Buffer {
    const from = (this.at + OPTIONS) * 4
    return this.bytes.subarray(from, from + (this.words[this.at + OPTIONS_BYTES] as number))
  }

  noteFrame(sent: Buffer, packet: Packet, frameBytes: number): void {
    const { at, words } = this
    words[at + FRAME_BYTES] = frameBytes
    words[at + WINDOW] = packet.window
    words[at + WINDOW_SCALE] = readWindowScale(sent, packet)
    const optionsAt = packet.headerBytes + TCP_HEADER_BYTES
    words[at + OPTIONS_BYTES] = sent.copy(this.bytes, (at + OPTIONS) * 4, optionsAt, packet.payloadOffset)
  }

  /** Begins a record anew. */
  begin(isn: number, nowMilliseconds: number): void {
    for (let i = 0; i < OPTIONS; i++) this.words[this.at + i] = 0
    this.words[this.at + ISN] = isn
    this.words[this.at + OPENED_AT] = nowMilliseconds / 1000
  }
}

/** Keeps the last `capacity` SYNs, the oldest forgotten first. */
export function createRecentSyns(capacity: number, seed: HashSeed): RecentSyns {
  const ring = createSlotRing(capacity, seed)
  const shown = new ShownSyn(capacity)
  return {
    find(tuple) {
      const slot = ring.find(tuple)
      if (slot === -1) return undefined
      shown.at = slot * RECORD_WORDS
      return shown
    },
    note(tuple, isn, now) {
      const known = ring.find(tuple)
      shown.at = known * RECORD_WORDS
      if (known === -1 || shown.isn !== isn) {
        shown.at = ring.claim(tuple) * RECORD_WORDS
        shown.begin(isn, now)
      }
      shown.sent++
      return shown
    },
  }
}
