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
  /**
   * Keeps at most `most` packets of that name. `held`: kept. `first`: kept, and nobody waits for the same need yet.
   * `full` and `repeated` (there are `most`): not kept.
   */
  add(name: string, packet: HeldPacket, most?: number): 'first' | 'held' | 'full' | 'repeated'
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

interface Entry {
  readonly name: string
  readonly packet: HeldPacket
}

/**
 * Packets by name (tuple, hook and protocol), at most `maximum` in all. Where they are full, a packet takes the place of
 * the last one of the kind that holds most, unless that is its own; `onEvicted` hears of that one, and gives its verdict.
 */
export function createHeldPackets(
  maximum: number,
  onEvicted: (packet: HeldPacket) => void = () => undefined,
): HeldPackets {
  /** In order of arrival. */
  const entries = new Set<Entry>()
  const countsByName = new Map<string, number>()
  const counts: Record<Kind, number> = { own: 0, verify: 0, address: 0 }

  function remove(entry: Entry): void {
    entries.delete(entry)
    counts[kindOf(entry.packet)]--
    const left = (countsByName.get(entry.name) ?? 0) - 1
    if (left > 0) countsByName.set(entry.name, left)
    else countsByName.delete(entry.name)
  }

  function take(wanted: (packet: HeldPacket) => boolean): HeldPacket[] {
    const taken: HeldPacket[] = []
    for (const entry of entries) {
      if (!wanted(entry.packet)) continue
      remove(entry)
      taken.push(entry.packet)
    }
    return taken
  }

  /** True where there is room, if need be at the expense of the kind that holds most. */
  function makeRoom(kind: Kind): boolean {
    if (entries.size < maximum) return true
    const most = Math.max(...Object.values(counts))
    if (counts[kind] + 1 >= most) return false
    let evicted: Entry | undefined
    for (const entry of entries) if (counts[kindOf(entry.packet)] === most) evicted = entry
    if (evicted === undefined) return false
    remove(evicted)
    onEvicted(evicted.packet)
    return true
  }

  return {
    add(name, packet, most = 1) {
      if ((countsByName.get(name) ?? 0) >= most) return 'repeated'
      const kind = kindOf(packet)
      if (!makeRoom(kind)) return 'full'
      let first = true
      const key = needKey(packet.need)
      for (const other of entries) {
        if (needKey(other.packet.need) !== key) continue
        first = false
        break
      }
      entries.add({ name, packet })
      // Read again: room may have been made at the expense of the same name.
      countsByName.set(name, (countsByName.get(name) ?? 0) + 1)
      counts[kind]++
      return first ? 'first' : 'held'
    },
    takeByNeed: (key) => take((packet) => needKey(packet.need) === key),
    takeExpired: (now) => take((packet) => packet.deadline <= now),
    size: () => entries.size,
  }
}

export function needKey(need: Need): string {
  return need.kind === 'ready' ? 'ready' : need.key
}
