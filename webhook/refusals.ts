/** Refusals that sidecars tell of, as Events: sidecars write none, as every program of the Pod's account could then too. */
import type { PodIdentity } from '../api/identity.ts'
import type { ToldRefusal } from '../api/reports.ts'
import { WebhookError } from './errors.ts'
import type { EventSubject, EventToWrite } from './events.ts'
import { REFUSALS_OF_A_REQUEST } from './limits.ts'

export const EVENT_REFUSED = 'ConnectionRefused'

/** `namespace/name`, or an address. */
const PEER = /^[a-z0-9.:/-]{1,320}$/
const POLICY = /^[a-z0-9.-]{1,63}\/[a-z0-9.-]{1,253}$/
const POLICIES = 16

/** The refusals of a request's body. Throws WebhookError `request-invalid`. */
export function parseRefusalsRequest(body: unknown): ToldRefusal[] {
  const { refusals } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  if (!Array.isArray(refusals) || refusals.length > REFUSALS_OF_A_REQUEST) {
    throw new WebhookError('request-invalid', `refusals must be a list of at most ${REFUSALS_OF_A_REQUEST}.`)
  }
  return refusals.map(parseRefusal)
}

function parseRefusal(value: unknown): ToldRefusal {
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  const { direction, reason, protocol, port, peer, identified, policies, count } = fields
  if (direction !== 'ingress' && direction !== 'egress') throw invalid('direction must be ingress or egress.')
  if (typeof reason !== 'string' || !/^[a-z-]{1,40}$/.test(reason)) throw invalid('reason must be a code.')
  if (typeof protocol !== 'string' || !/^[A-Z0-9]{1,8}$/.test(protocol)) throw invalid('protocol must be one.')
  if (!isCount(port) || port > 65_535) throw invalid('port must be one.')
  if (typeof peer !== 'string' || !PEER.test(peer)) throw invalid('peer must be a Pod or an address.')
  if (typeof identified !== 'boolean') throw invalid('identified must be true or false.')
  if (!Array.isArray(policies) || policies.length > POLICIES || !policies.every(isPolicy)) {
    throw invalid(`policies must be a list of at most ${POLICIES}.`)
  }
  if (!isCount(count) || count === 0) throw invalid('count must be one.')
  return { direction, reason, protocol, port, peer, identified, policies, count }
}

const isPolicy = (value: unknown): value is string => typeof value === 'string' && POLICY.test(value)
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
const invalid = (message: string) => new WebhookError('request-invalid', message)

/**
 * The Events of refusals by `caller`: at the Pod that refuses, and at its peer where that is an identified Pod of the same
 * namespace. Elsewhere a peer is not told: the policies' names are not its own, and nobody should write what they like into
 * another's Events. `uidOf` finds a live Pod of the namespace.
 */
export function refusalEvents(
  caller: Pick<PodIdentity, 'namespace' | 'name' | 'uid'>,
  refusals: readonly ToldRefusal[],
  uidOf: (namespace: string, name: string) => string | undefined,
): EventToWrite[] {
  return refusals.flatMap((refusal) => {
    const { direction, reason, protocol, port, peer, policies, count } = refusal
    const code = [direction, reason, protocol, port, peer].join(' ')
    const why = policies.length > 0 ? `${reason}: isolated by ${policies.join(', ')}, no rule matches` : reason
    const times = count === 1 ? '' : `, ${count} times`
    const towards = direction === 'ingress' ? `from ${peer} to` : `to ${peer},`
    const event = { type: 'Warning', reason: EVENT_REFUSED, code } as const
    const own = {
      ...event,
      subject: podSubject(caller.namespace, caller.name, caller.uid),
      message: `Connection ${towards} port ${port}/${protocol} refused (${direction}): ${why}${times}`,
    }
    const [namespace = '', name = ''] = peer.split('/', 2)
    const uid = refusal.identified && namespace === caller.namespace ? uidOf(namespace, name) : undefined
    if (uid === undefined) return [own]
    const from = direction === 'ingress' ? 'to' : 'from'
    const other = {
      ...event,
      code: `${caller.name} ${code}`,
      subject: podSubject(namespace, name, uid),
      message: `Connection ${from} ${caller.namespace}/${caller.name}, port ${port}/${protocol}, refused there (${direction}): ${why}${times}`,
    }
    return [own, other]
  })
}

function podSubject(namespace: string, name: string, uid: string): EventSubject {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid }
}
