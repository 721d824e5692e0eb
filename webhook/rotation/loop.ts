import type { Logger } from 'pino'
import type { RotationKind } from '../../api/rotation.ts'
import { pause } from '../../kubernetes/backoff.ts'
import { describeError } from '../log.ts'
import type { Reconciled } from './reconciler.ts'
import { isMoving, type KeyRotation } from './rotation.ts'

export interface LoopOptions {
  readonly rotations: readonly KeyRotation<unknown>[]
  /** Takes or renews the Lease. */
  readonly hold: () => Promise<boolean>
  readonly onResult: (kind: RotationKind, result: Reconciled) => void
  readonly onFailure: (kind: RotationKind, error: Error) => void
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
  readonly signal: AbortSignal
}

/** Several times within REPLICA_FENCE_SECONDS. */
const TURN_MS = 5_000
/** While replicas wait for each other. */
const MOVING_TURN_MS = 1_000

/** Takes turns until `signal` ends it; resolves then. What fails is told, and tried again at the next turn. */
export async function runRotations(options: LoopOptions): Promise<void> {
  const { rotations, log, random, signal } = options
  const failing = new Map<RotationKind, string>()

  async function turn({ kind, turn }: KeyRotation<unknown>, hold: () => Promise<boolean>): Promise<void> {
    try {
      const result = await turn(hold)
      if (failing.delete(kind)) log.info({ kind }, 'the keys can be read again')
      if (result.wrote !== undefined) {
        const { wrote, request, refusal } = result
        log.info({ kind, wrote, request: request?.id, refused: refusal?.refused }, 'the keys were written')
      }
      options.onResult(kind, result)
    } catch (error) {
      if (signal.aborted) return
      options.onFailure(kind, error as Error)
      const described = describeError(error)
      const text = JSON.stringify(described)
      if (failing.get(kind) !== text) log.error({ kind, ...described }, 'no turn of the rotation; trying again')
      failing.set(kind, text)
    }
  }

  while (!signal.aborted) {
    let held: Promise<boolean> | undefined
    const hold = () => {
      held ??= options.hold()
      return held
    }
    await Promise.all(rotations.map((rotation) => turn(rotation, hold)))
    const moving = rotations.some(({ holder }) => isMoving(holder.last()))
    await pause((moving ? MOVING_TURN_MS : TURN_MS) * (0.8 + 0.4 * random()), signal)
  }
}
