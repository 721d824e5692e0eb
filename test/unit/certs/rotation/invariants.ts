import { laggards } from '../../../../certs/rotation/facts.ts'
import type { KeyState } from '../../../../certs/rotation/keyring.ts'
import { activeKey } from '../../../../certs/rotation/keyring.ts'
import { isServing, presentFacts, type Ring, type Sidecar, TIMING, type World } from './world.ts'

/** What must never be, as sentences on what is; none where all is well. */

const { skewSeconds } = TIMING

/** Whether anybody whose clock is ahead of the world's by `clock` still accepts what ends then. */
const isAccepted = (expiresAt: number, time: number) => expiresAt + skewSeconds > time

const holdsIdentity = (world: World, { isLive, wit, clock }: Sidecar) =>
  isLive && wit !== undefined && isAccepted(wit.expiresAt, world.time + clock)

/** Every identity that a sidecar would accept is by a key that it holds, be it frozen or cut off. */
export function unverifiable(world: World): string[] {
  return world.sidecars
    .filter((sidecar) => holdsIdentity(world, sidecar))
    .flatMap(({ uid, clock, bundle }) => {
      const shown = world.wits.filter(({ expiresAt }) => isAccepted(expiresAt, world.time + clock))
      const missing = new Set(shown.map(({ kid }) => kid).filter((kid) => !bundle?.kids.includes(kid)))
      return [...missing].map((kid) => `${uid} cannot verify ${kid}`)
    })
}

/** Whatever a replica signs by, each other that answers gives out, and the Secret holds. */
export function signersOutside(world: World): string[] {
  const serving = world.replicas.filter((replica) => isServing(world, replica))
  return serving.flatMap(({ name, view }) => {
    const signer = activeKey(view)?.id
    const bundles = [...serving.map((other) => ({ name: other.name, keys: other.view.keys }))]
    return [...bundles, { name: 'the Secret', keys: world.store.keys }]
      .filter(({ keys }) => !keys.some(({ id }) => id === signer))
      .map((other) => `${name} signs by ${signer}, which ${other.name} lacks`)
  })
}

/** Every identity that is accepted somewhere, but those of a compromised key, can be verified by whoever asks a replica. */
export function unknownToReplicas(world: World): string[] {
  const kids = new Set(world.wits.filter(({ expiresAt }) => isAccepted(expiresAt, world.time)).map(({ kid }) => kid))
  const disowned = new Set(compromisedKeys(world))
  return world.replicas
    .filter((replica) => isServing(world, replica))
    .flatMap(({ name, view }) => {
      const missing = [...kids].filter((kid) => !disowned.has(kid) && !view.keys.some(({ id }) => id === kid))
      return missing.map((kid) => `${name} does not give out ${kid}`)
    })
}

function compromisedKeys({ history }: World): string[] {
  return history.flatMap(({ ring }) => ring.keys.filter(({ compromised }) => compromised).map(({ id }) => id))
}

/** A sidecar that lacks the key which all are waiting for is named as long as its identity lives. */
export function unnamed(world: World): string[] {
  const prepared = world.store.keys.find(({ state }) => state === 'prepared')
  if (prepared?.confirmed === undefined) return []
  const named = laggards(presentFacts(world), prepared.confirmed.generation)
  return world.sidecars
    .filter((sidecar) => holdsIdentity(world, sidecar) && !sidecar.bundle?.kids.includes(prepared.id))
    .filter(({ uid }) => !named.includes(uid))
    .map(({ uid }) => `${uid} lacks ${prepared.id} and is not named`)
}

type Place = KeyState | 'absent'

/** How a key may move in one write. Anything else is a state that was lost. */
const MOVES: Readonly<Record<Place, readonly Place[]>> = {
  absent: ['absent', 'prepared'],
  prepared: ['prepared', 'active', 'absent'],
  active: ['active', 'previous'],
  previous: ['previous', 'active', 'absent'],
}

/** Of the last write: keys that moved as none may, and a number of active keys that is not one. */
export function wrongMoves({ history, wits }: World): string[] {
  const last = history.at(-1)
  if (last === undefined) return []
  const before: Ring = history.at(-2)?.ring ?? { generation: 0, keys: [] }
  const stateIn = ({ keys }: Ring, id: string): Place => keys.find((key) => key.id === id)?.state ?? 'absent'
  const everKnown = new Set(history.flatMap(({ ring }) => ring.keys.map(({ id }) => id)))
  const moved = [...everKnown].flatMap((id) => {
    const [from, to] = [stateIn(before, id), stateIn(last.ring, id)]
    const isFirst = history.length === 1 && to === 'active'
    const wasThere = history.slice(0, -1).some(({ ring }) => ring.keys.some((key) => key.id === id))
    const isBack = from === 'absent' && to !== 'absent' && wasThere
    const isTrustedAgain =
      from === 'previous' && to === 'active' && before.keys.some((key) => key.id === id && key.compromised)
    const isAllowed = isFirst || (MOVES[from].includes(to) && !isBack && !isTrustedAgain)
    return isAllowed ? [] : [`${id} went from ${from} to ${to} by ${last.event}`]
  })
  const active = last.ring.keys.filter(({ state }) => state === 'active').length
  const prepared = last.ring.keys.filter(({ state }) => state === 'prepared').length
  const counted = active === 1 && prepared <= 1 ? [] : [`${active} keys are active, ${prepared} prepared`]
  const backwards = last.ring.generation > before.generation ? [] : ['the generation did not grow']
  const gone = before.keys.filter(({ id }) => stateIn(last.ring, id) === 'absent')
  const tooEarly = gone
    .filter(({ id, compromised }) => {
      return !compromised && wits.some(({ kid, expiresAt }) => kid === id && isAccepted(expiresAt, last.time))
    })
    .map(({ id }) => `${id} was removed while an identity by it is accepted`)
  return [...moved, ...counted, ...backwards, ...tooEarly]
}
