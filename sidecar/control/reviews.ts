/** Reviews of running connections, one at a time. */

export interface Reviews {
  /** Runs a review for this cause, now or behind the one under way; several requests of one cause may share a run. */
  request(cause: string): void
}

export function createReviews(run: (cause: string) => Promise<void>): Reviews {
  const waiting = new Set<string>()
  let running = false

  async function drain(): Promise<void> {
    running = true
    for (const cause of waiting) {
      waiting.delete(cause)
      await run(cause)
    }
    running = false
  }

  return {
    request(cause) {
      waiting.add(cause)
      if (!running) void drain()
    },
  }
}
