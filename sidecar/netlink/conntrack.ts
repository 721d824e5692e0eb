/** The kernel's connection tracking table: listing it and changing marks in place. */

import { NetlinkError } from './errors.ts'
import {
  type ConntrackTuple,
  decodeFlow,
  encodeFlowDelete,
  encodeFlowDump,
  encodeMarkUpdate,
  encodeReopen,
  type Flow,
  type MarkFilter,
} from './flow.ts'
import { ENOENT } from './libc.ts'
import { dumpAll, dumpInSteps, openRequester, type Steps, takeAll } from './request.ts'
import { NETLINK_NETFILTER, type Transport } from './transport.ts'

/** A change of an entry's mark: the bits of `mask` become those of `mark`. */
export interface MarkUpdate {
  readonly tuple: ConntrackTuple
  readonly mark: number
  readonly mask: number
}

export interface Conntrack {
  /**
   * Calls `onFlow` with each entry, or with those of a mark (filtered in the kernel). Where the table changes so that
   * the kernel asks for a new listing, entries come again: `onFlow` must bear that. Returns how many calls it made.
   * Throws NetlinkError.
   */
  dump(filter: MarkFilter | undefined, onFlow: (flow: Flow) => void): number
  /**
   * As `dump`, in steps of what one read of the kernel's gives, some hundred entries: between them whoever lists a long
   * table does other things, but nothing else with this socket, and takes all steps.
   */
  dumpInSteps(filter: MarkFilter | undefined, onFlow: (flow: Flow) => void): Steps<number>
  /** How many entries have the mark, or exist at all. Throws NetlinkError. */
  count(filter: MarkFilter | undefined): number
  /** True where the entry was there and is changed, false where it is gone. Throws NetlinkError for any other answer. */
  updateMark(tuple: ConntrackTuple, mark: number, mask: number): boolean
  /** As `updateMark` for many with few calls; returns how many were there. Throws after all were tried. */
  updateMarks(updates: readonly MarkUpdate[]): number
  /** Makes a TCP entry one whose SYN was just seen: true where it was there. Throws NetlinkError. */
  reopen(tuple: ConntrackTuple): boolean
  /** Removes an entry: true where it was there. Throws NetlinkError. */
  remove(tuple: ConntrackTuple): boolean
  close(): void
}

/** Opens a socket to the table of this network namespace. A test gives its own `transport`. Throws NetlinkError. */
export function openConntrack(transport?: Transport): Conntrack {
  const requester = openRequester(NETLINK_NETFILTER, transport)

  function* dump(filter: MarkFilter | undefined, onFlow: (flow: Flow) => void): Steps<number> {
    let calls = 0
    const onMessage = (buffer: Uint8Array, at: number, end: number): void => {
      const flow = decodeFlow(buffer, at, end)
      if (flow === undefined) return
      calls++
      onFlow(flow)
    }
    yield* dumpInSteps(requester, 'the tracked connections', encodeFlowDump(filter), onMessage, () => undefined)
    return calls
  }

  const found = (what: string, errno: number): boolean => {
    if (errno === 0) return true
    if (errno === -ENOENT) return false
    throw new NetlinkError('netlink-request', `cannot ${what} a tracked connection`, errno)
  }

  const updateMarks = (updates: readonly MarkUpdate[]): number =>
    requester
      .requestAll(updates.map(({ tuple, mark, mask }) => encodeMarkUpdate(tuple, mark, mask)))
      .filter((errno) => found('mark', errno)).length

  return {
    dump: (filter, onFlow) => takeAll(dump(filter, onFlow)),
    dumpInSteps: dump,
    count(filter) {
      let flows = 0
      const request = encodeFlowDump(filter)
      dumpAll(
        requester,
        'the tracked connections',
        request,
        () => flows++,
        () => {
          flows = 0
        },
      )
      return flows
    },
    updateMark: (tuple, mark, mask) => updateMarks([{ tuple, mark, mask }]) === 1,
    updateMarks,
    reopen: (tuple) => found('reopen', requester.requestAll([encodeReopen(tuple)])[0] ?? 0),
    remove: (tuple) => found('remove', requester.requestAll([encodeFlowDelete(tuple)])[0] ?? 0),
    close: () => requester.close(),
  }
}
