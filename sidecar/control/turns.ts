import { setImmediate } from 'node:timers/promises'
import type { Steps } from '../netlink/request.ts'

/** Takes steps one at a time and resolves to their result; between them the event loop does what waits. */
export async function takeInTurns<Result>(steps: Steps<Result>): Promise<Result> {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
    await setImmediate()
  }
}
