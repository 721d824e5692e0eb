/** Plain numbers that the packet path counts; the control plane turns them into metrics (docs/metrics.md). */
import type { Refusal } from '../handshake/reasons.ts'

export type PacketKind =
  | 'syn-out'
  | 'syn-in'
  | 'syn-ack-out'
  | 'syn-ack-in'
  | 'proof-in'
  | 'late'
  | 'midstream'
  | 'datagram'
  | 'other'

/** Values by `name` or `name:label:label`, all rising. */
export type CounterValues = Readonly<Record<string, number>>

export interface Counters {
  packet(kind: PacketKind): void
  released(direction: 'ingress' | 'egress', peer: 'identified' | 'plain' | 'own'): void
  denied(direction: 'ingress' | 'egress', refusal: Refusal, enforced: boolean): void
  dropped(refusal: Refusal): void
  add(name: string, amount: number): void
  values(): CounterValues
}

export function createCounters(): Counters {
  const values: Record<string, number> = Object.create(null)
  function add(name: string, amount: number): void {
    values[name] = (values[name] ?? 0) + amount
  }
  const packets: Record<PacketKind, number> = {
    'syn-out': 0,
    'syn-in': 0,
    'syn-ack-out': 0,
    'syn-ack-in': 0,
    'proof-in': 0,
    late: 0,
    midstream: 0,
    datagram: 0,
    other: 0,
  }
  return {
    packet(kind) {
      packets[kind]++
    },
    released: (direction, peer) => add(`released:${direction}:${peer}`, 1),
    denied: (direction, refusal, enforced) => add(`${enforced ? 'refused' : 'would-deny'}:${direction}:${refusal}`, 1),
    dropped: (refusal) => add(`dropped:${refusal}`, 1),
    add,
    values() {
      const all: Record<string, number> = { ...values }
      for (const [kind, count] of Object.entries(packets)) all[`packets:${kind}`] = count
      return all
    },
  }
}
