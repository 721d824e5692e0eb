/** flows.c: connections that are kept open, and what becomes of them at either end. */
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { createInterface } from 'node:readline'

/** What `serve` and `hold` print. */
export interface FlowState {
  readonly open: number
  readonly ended: number
  readonly failed: number
  /** Microseconds of CLOCK_MONOTONIC. */
  readonly lastEnded: number
  readonly firstError: string
}

/** One end's connections, in a process of their own. */
export interface End {
  /** Says a line to it, and returns its answer. */
  ask(line: string): Promise<FlowState>
}

/** The end that such a process stands for; `next` reads what it says unasked, as `serve` does once it listens. */
export function endOf(child: ChildProcessWithoutNullStreams): End & { next(): Promise<FlowState> } {
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<FlowState> => {
    const { value, done } = await lines.next()
    if (done) throw new Error('flows ended')
    return JSON.parse(value)
  }
  return {
    next,
    ask(line) {
      child.stdin.write(`${line}\n`)
      return next()
    },
  }
}
