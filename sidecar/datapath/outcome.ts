/** What the gate decides for one packet. One object is reused for all packets. */
import type { Refusal } from '../handshake/reasons.ts'
import type { Packet } from '../packet/decode.ts'
import { stripPayload } from '../packet/rewrite.ts'

/**
 * pass: let through, the connection stays unauthorised. release: let through and authorise the connection.
 * refuse: reset or ICMP error. drop: silently.
 * hold: keep the packet until `need` is answered, then judge it anew.
 */
export type Action = 'pass' | 'release' | 'refuse' | 'drop' | 'hold'

export type Need =
  | { readonly kind: 'ready' }
  /** Verify this WIT section; `key` names it. */
  | { readonly kind: 'verify'; readonly key: string; readonly section: Buffer }
  /** Ask the directory for this address. */
  | { readonly kind: 'resolve'; readonly key: string; readonly address: string }
  /** A row of the identity table for this peer behind a translated address. */
  | { readonly kind: 'row'; readonly key: string; readonly index: number; readonly port: number }

export interface Outcome {
  action: Action
  /** Bits of the connection's mark beside "released": MARK_OWN, or the index of the peer. */
  mark: number
  /** The packet in its new form, or 0 where it stays as it is. */
  readonly packet: Buffer
  packetBytes: number
  /** A packet to be sent through the raw socket before the verdict, or 0. */
  readonly reply: Buffer
  replyBytes: number
  refusal: Refusal | ''
  need: Need | undefined
}

export function createOutcome(): Outcome {
  return {
    action: 'drop',
    mark: 0,
    packet: Buffer.alloc(70_000),
    packetBytes: 0,
    reply: Buffer.alloc(2_048),
    replyBytes: 0,
    refusal: '',
    need: undefined,
  }
}

function settle(outcome: Outcome, action: Action): void {
  outcome.action = action
  outcome.mark = 0
  outcome.packetBytes = 0
  outcome.replyBytes = 0
  outcome.refusal = ''
  outcome.need = undefined
}

/** Lets the packet through; `packetBytes` of `outcome.packet` replace it where not 0. */
export function pass(outcome: Outcome, packetBytes = 0): void {
  settle(outcome, 'pass')
  outcome.packetBytes = packetBytes
}

/** Authorises the connection: `mark` is the peer's index or MARK_OWN. */
export function release(outcome: Outcome, mark: number, packetBytes = 0, replyBytes = 0): void {
  settle(outcome, 'release')
  outcome.mark = mark
  outcome.packetBytes = packetBytes
  outcome.replyBytes = replyBytes
}

export function drop(outcome: Outcome, refusal: Refusal | '' = '', replyBytes = 0): void {
  settle(outcome, 'drop')
  outcome.refusal = refusal
  outcome.replyBytes = replyBytes
}

export function refuse(outcome: Outcome, refusal: Refusal, packetBytes = 0): void {
  settle(outcome, 'refuse')
  outcome.refusal = refusal
  outcome.packetBytes = packetBytes
}

export function hold(outcome: Outcome, need: Need): void {
  settle(outcome, 'hold')
  outcome.need = need
}

/** Lets a packet through without data: nobody has decided for its connection yet. */
export function passWithoutData(bytes: Buffer, packet: Packet, outcome: Outcome): void {
  pass(outcome, packet.payloadBytes > 0 ? stripPayload(bytes, packet, outcome.packet) : 0)
}

/** Holds the packet until the directory has been asked for the address. */
export function needAddress(outcome: Outcome, address: string): void {
  hold(outcome, { kind: 'resolve', key: `address ${address}`, address })
}
