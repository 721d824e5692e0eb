/** When a sidecar has taken a change of policies: its metric policy_swap_seconds counts the reviews that ended. */
import { performance } from 'node:perf_hooks'
import type { RunningPod } from '../../../lab/pod.ts'
import { pause, readMetrics } from './field.ts'

export interface ReviewState {
  readonly count: number
  readonly seconds: number
}

export interface ReviewTime {
  /** From the change to the end of the review, as seen from outside: in steps of about 20. */
  readonly milliseconds: number
  /** Of these, the review of the running connections alone. */
  readonly reviewMilliseconds: number
}

const POLL_MILLISECONDS = 20
const DEADLINE_MILLISECONDS = 120_000

export async function stateOfReviews(pod: RunningPod): Promise<ReviewState> {
  const metrics = await readMetrics(pod)
  return {
    count: metrics.get('synguard_policy_swap_seconds_count') ?? 0,
    seconds: metrics.get('synguard_policy_swap_seconds_sum') ?? 0,
  }
}

/** Makes a change of policies and waits until its review has ended. Throws after two minutes. */
export async function awaitReview(pod: RunningPod, before: ReviewState, change: () => void): Promise<ReviewTime> {
  const begun = performance.now()
  change()
  for (;;) {
    await pause(POLL_MILLISECONDS)
    const after = await stateOfReviews(pod)
    const milliseconds = performance.now() - begun
    if (after.count > before.count) {
      return {
        milliseconds,
        reviewMilliseconds: ((after.seconds - before.seconds) * 1000) / (after.count - before.count),
      }
    }
    if (milliseconds > DEADLINE_MILLISECONDS) throw new Error('a change of policies was not taken')
  }
}
