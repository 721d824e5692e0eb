/**
 * Plain numbers that the packet path counts. Their keys are the metrics' names and label values as
 * sidecar/control/metrics.ts takes them: `name|label|label`.
 */
import type { Refusal } from '../handshake/reasons.ts'
import type { Action } from './outcome.ts'

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

export type CounterValues = Readonly<Record<string, number>>

export interface Counters {
  packet(kind: PacketKind): void
  verdict(action: Action): void
  released(direction: 'ingress' | 'egress', peer: 'identified' | 'plain' | 'own'): void
  denied(direction: 'ingress' | 'egress', refusal: Refusal, enforced: boolean): void
  dropped(refusal: Refusal): void
  add(name: 'syn_ack_repeats_total' | 'raw_send_failures_total' | 'verdict_failures_total'): void
  /** All values so far; they only rise. */
  values(): Record<string, number>
}

export function createCounters(): Counters {
  const rare: Record<string, number> = Object.create(null)
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
  const verdicts: Record<Action, number> = { pass: 0, release: 0, refuse: 0, drop: 0, hold: 0 }
  const released = {
    ingress: { identified: 0, plain: 0, own: 0 },
    egress: { identified: 0, plain: 0, own: 0 },
  }

  function add(key: string): void {
    rare[key] = (rare[key] ?? 0) + 1
  }

  return {
    packet(kind) {
      packets[kind]++
    },
    verdict(action) {
      verdicts[action]++
    },
    released(direction, peer) {
      released[direction][peer]++
    },
    denied: (direction, refusal, enforced) =>
      add(`${enforced ? 'connections_refused_total' : 'would_deny_total'}|${direction}|${refusal}`),
    dropped: (refusal) => add(`packets_dropped_total|${refusal}`),
    add,
    values() {
      const all: Record<string, number> = { ...rare }
      for (const [kind, count] of Object.entries(packets)) {
        all[`packets_queued_total|${kind === 'datagram' || kind === 'other' ? 'other' : 'tcp'}|${kind}`] = count
      }
      for (const [action, count] of Object.entries(verdicts)) all[`verdicts_total|${action}`] = count
      for (const [direction, peers] of Object.entries(released)) {
        for (const [peer, count] of Object.entries(peers)) {
          all[`connections_released_total|${direction}|${peer}`] = count
        }
      }
      return all
    },
  }
}
