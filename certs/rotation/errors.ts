/** Why a rotation does not take an event. The first group are guards: the event is right, only not yet. */
export const ROTATION_ERRORS = {
  'rotation-waits-replicas': 'A replica of the webhook does not act by the latest keys yet, or none is known to.',
  'rotation-waits-trust': 'caBundle or the ConfigMap of a namespace does not hold every serving CA yet.',
  'rotation-waits-sidecars': 'Sidecars have not acknowledged the latest keys yet; they are named.',
  'rotation-waits-time': 'Something that a replaced key signed may still be shown and accepted.',
  'rotation-no-keys': 'There are no keys yet: nothing can be rotated before the authority exists.',
  'rotation-keys-lost': 'Replicas act by keys that the Secret lost: restore it, or stop all of them to begin anew.',
  'rotation-has-keys': 'There are keys already: they are rotated, not made anew.',
  'rotation-running': 'A rotation is under way: wait for its end, abort it, or declare the keys compromised.',
  'rotation-not-running': 'No rotation is under way, so there is nothing to abort or to force.',
  'rotation-order': 'The step is not one of those that the rotation takes from where it stands.',
  'rotation-no-way-back':
    'The keys are compromised or were swapped back before: the rotation cannot be aborted any more.',
  'rotation-not-forcible': 'The rotation waits for time or for replicas, which no operator can shorten safely.',
  'rotation-too-many-keys':
    'There are as many keys as sidecars are promised at most; wait until replaced ones are removed.',
  'rotation-known-key': 'The key given as a fresh one is among the keys already.',
  'rotation-schedule': 'The schedule is shorter than one rotation with a silent sidecar may take.',
  'rotation-request':
    'What stands in the ConfigMap synguard-rotation cannot be read; the message names the entry and what to write.',
} as const
export type RotationErrorCode = keyof typeof ROTATION_ERRORS

/** An event that was not taken; nothing changes by it. */
export interface RotationRefusal {
  readonly refused: RotationErrorCode
  /** For people; names no key but by its id. */
  readonly message: string
  /** The replicas or sidecars that are waited for. */
  readonly names?: readonly string[]
  /** The earliest time at which the event can be taken without them, in seconds since the epoch. */
  readonly until?: number
}

export function refuse(
  refused: RotationErrorCode,
  details: { names?: readonly string[]; until?: number } = {},
): RotationRefusal {
  return { refused, message: ROTATION_ERRORS[refused], ...details }
}
