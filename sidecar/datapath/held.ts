/** Packets that wait for the control plane. The kernel keeps them too, until their verdict. */
import type { Need } from './outcome.ts'

export interface HeldPacket {
  readonly queue: number
  readonly id: number
  readonly hook: number
  readonly mark: number
  readonly bytes: Buffer
  readonly need: Need
  /** Milliseconds since the epoch. */
  readonly deadline: number
}

export interface HeldPackets {
  /** `held`: kept. `first`: kept, and nobody waits for the same need yet. `full` and `repeated`: not kept. */
  add(name: string, packet: HeldPacket): 'first' | 'held' | 'full' | 'repeated'
  /** Takes out what waits for the need, in order of arrival. */
  takeByNeed(needKey: string): HeldPacket[]
  takeExpired(nowMilliseconds: number): HeldPacket[]
  size(): number
}

/** One packet a name (tuple, hook and protocol), at most `maximum`. */
export function createHeldPackets(maximum: number): HeldPackets {
  const byName = new Map<string, HeldPacket>()

  function take(wanted: (packet: HeldPacket) => boolean): HeldPacket[] {
    const taken: HeldPacket[] = []
    for (const [name, packet] of byName) {
      if (!wanted(packet)) continue
      byName.delete(name)
      taken.push(packet)
    }
    return taken
  }

  return {
    add(name, packet) {
      if (byName.has(name)) return 'repeated'
      if (byName.size >= maximum) return 'full'
      let first = true
      const key = needKey(packet.need)
      for (const other of byName.values()) {
        if (needKey(other.need) !== key) continue
        first = false
        break
      }
      byName.set(name, packet)
      return first ? 'first' : 'held'
    },
    takeByNeed: (key) => take((packet) => needKey(packet.need) === key),
    takeExpired: (now) => take((packet) => packet.deadline <= now),
    size: () => byName.size,
  }
}

export function needKey(need: Need): string {
  return need.kind === 'ready' ? 'ready' : need.key
}
