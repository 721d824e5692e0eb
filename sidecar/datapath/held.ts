/** Packets that wait for the control plane. The kernel keeps them too, until their verdict. */
import { NF_INET_LOCAL_IN } from '../netlink/queue.ts'
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

/** What the Pod sends, who shows a WIT, and who shows none: others fill one of these with a flood, not all. */
type Kind = 'own' | 'verify' | 'address'

function kindOf(packet: HeldPacket): Kind {
  if (packet.hook !== NF_INET_LOCAL_IN) return 'own'
  return packet.need.kind === 'verify' ? 'verify' : 'address'
}

/**
 * One packet a name (tuple, hook and protocol), at most `maximum`. Where they are full, a packet takes the place of the
 * last one of the kind that holds most, unless that is its own; `onEvicted` hears of that one, and gives its verdict.
 */
export function createHeldPackets(
  maximum: number,
  onEvicted: (packet: HeldPacket) => void = () => undefined,
): HeldPackets {
  const byName = new Map<string, HeldPacket>()
  const counts: Record<Kind, number> = { own: 0, verify: 0, address: 0 }

  function remove(name: string, packet: HeldPacket): void {
    byName.delete(name)
    counts[kindOf(packet)]--
  }

  function take(wanted: (packet: HeldPacket) => boolean): HeldPacket[] {
    const taken: HeldPacket[] = []
    for (const [name, packet] of byName) {
      if (!wanted(packet)) continue
      remove(name, packet)
      taken.push(packet)
    }
    return taken
  }

  /** True where there is room, if need be at the expense of the kind that holds most. */
  function makeRoom(kind: Kind): boolean {
    if (byName.size < maximum) return true
    const most = Math.max(...Object.values(counts))
    if (counts[kind] + 1 >= most) return false
    let evicted: [string, HeldPacket] | undefined
    for (const entry of byName) if (counts[kindOf(entry[1])] === most) evicted = entry
    if (evicted === undefined) return false
    remove(...evicted)
    onEvicted(evicted[1])
    return true
  }

  return {
    add(name, packet) {
      if (byName.has(name)) return 'repeated'
      const kind = kindOf(packet)
      if (!makeRoom(kind)) return 'full'
      let first = true
      const key = needKey(packet.need)
      for (const other of byName.values()) {
        if (needKey(other.need) !== key) continue
        first = false
        break
      }
      byName.set(name, packet)
      counts[kind]++
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
