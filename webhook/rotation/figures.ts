import { activeKey, KEY_STATES, PHASES, phaseOf } from '../../certs/rotation/keyring.ts'
import type { KeyFigures } from '../metrics.ts'
import type { KeyRotation } from './rotation.ts'

/** What the metrics say of a rotation at this moment; undefined before the first reading. `now` in seconds. */
export function rotationFigures(rotation: KeyRotation<unknown>, now: number): KeyFigures | undefined {
  const ring = rotation.holder.last()
  if (ring === undefined) return undefined
  const phase = phaseOf(ring)
  const count = (wanted: string) => ring.keys.filter(({ state }) => state === wanted).length
  const changes = ring.keys.map(({ since, confirmed }) => Math.max(since, confirmed?.at ?? 0))
  return {
    kind: rotation.kind,
    states: Object.fromEntries(KEY_STATES.map((state) => [state, count(state)])),
    ageSeconds: Math.max(0, now - (activeKey(ring)?.since ?? now)),
    readAgeSeconds: rotation.holder.readAgeSeconds(),
    phases: Object.fromEntries(PHASES.map((one) => [one, one === phase ? 1 : 0])),
    phaseSeconds: Math.max(0, now - Math.max(...changes)),
    missing: rotation.status()?.sidecars.missing.length,
  }
}
