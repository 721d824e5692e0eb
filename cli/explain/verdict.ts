/** What each end of a way decides, by the code that its sidecar decides with. */
import type { Mode, PodIdentity, Protocol } from '../../api/identity.ts'
import { parseAddress } from '../../policy/address.ts'
import { type Explanation, explain, formatDecision } from '../../policy/explain.ts'
import { type PolicyObject, suggestPolicy } from '../../policy/suggest.ts'
import type { Decision, Direction, Peer } from '../../policy/types.ts'
import { findDialled, findNodePort } from '../../sidecar/datapath/dialled.ts'
import { isClusterAddress } from '../../sidecar/datapath/gate.ts'
import { judgeAddress } from '../../sidecar/datapath/judge.ts'
import type { Refusal } from '../../sidecar/handshake/reasons.ts'
import { familyOf } from '../../webhook/directory/endpoints.ts'
import type { Guard } from './guard.ts'
import type { Way } from './ways.ts'

/** What one end does with the connection. */
export interface Verdict {
  readonly direction: Direction
  /**
   * `unjudged`: nobody guards this end, or it is the Pod's own address; `tolerated`: it is denied, and the mode lets it
   * pass.
   */
  readonly outcome: 'allowed' | 'denied' | 'tolerated' | 'unjudged'
  readonly reason: string
  /** Of docs/errors.md, as the sidecar's log and metrics have it; where it is denied. */
  readonly refusal?: Refusal
  readonly guard?: { readonly mode: Mode; readonly modeBy?: string; readonly ready: boolean; readonly revoked: boolean }
  /** As whom this end's policies see the other one. */
  readonly peer?: string
  readonly decision?: Decision
  /** The policies of this end's namespace, each with what it asked for and found. */
  readonly policies?: Explanation['policies']
  /** What would allow a denied connection, a sentence each. */
  readonly wouldAllow: readonly string[]
  /** A policy that would, beside the others. */
  readonly suggestion?: PolicyObject
}

/** Both ends of a way; a guard is missing where nobody guards the end. */
export interface Ends {
  readonly client: Guard | undefined
  readonly server: Guard | undefined
}

/** Whether both ends show their identities: TCP between guarded Pods, to where the client sends frames. */
export function isIdentified({ client, server }: Ends, way: Way, protocol: Protocol): boolean {
  if (client === undefined || server === undefined || protocol !== 'TCP') return false
  const { judge } = client
  const { address, port } = way.dialled
  const bytes = bytesOf(address)
  if (!isClusterAddress(judge, bytes, 0, bytes.length)) return false
  if (!judge.nodeAddresses.has(address)) return true
  const entry = judge.directory.get(address)
  return entry !== undefined && entry !== 'unknown' && findNodePort(entry, protocol, port) !== undefined
}

/** The client's own decision: egress. */
export function judgeEgress(ends: Ends, way: Way, protocol: Protocol): Verdict {
  const { client, server } = ends
  const direction = 'egress'
  if (client === undefined) return unjudged(direction, 'nobody guards this end')
  const { address, port } = way.dialled
  if (client.identity.addresses.includes(address)) return unjudged(direction, "the Pod's own address is never judged")
  if (server !== undefined && way.endpoint !== undefined && isIdentified(ends, way, protocol)) {
    const peer = identified(server.identity, way.source)
    if (server.revoked)
      return refused(client, direction, 'wit-void', describe(server.identity), [undoOf(server.identity)])
    return byPolicies(client, { direction, protocol, peer, port: way.endpoint.port })
  }
  const meeting = { direction, protocol, port, witExpected: protocol === 'TCP' } as const
  const bytes = bytesOf(address)
  const judgement = judgeAddress(client.judge, meeting, bytes, 0, bytes.length)
  if (judgement.kind === 'unknown') throw new Error(`the directory does not answer for ${judgement.address}`)
  const { decision, peer, refusal } = judgement
  const found = findDialled(client.judge.directory, address, protocol, port)
  const backends =
    found.kind === 'service'
      ? found.service.ports.flatMap((one) => (one.protocol === protocol && one.port === found.port ? one.backends : []))
      : []
  // A Service is judged by all backends without an identity, and refused for the first that is: by its own port.
  const real = backends.find((backend) => backend.address === peer.address)?.port ?? port
  return settle(client, { direction, protocol, peer, port: real }, decision, refusal)
}

/** The server's own decision: ingress. */
export function judgeIngress(ends: Ends, way: Way, protocol: Protocol): Verdict {
  const { client, server } = ends
  const direction = 'ingress'
  if (way.endpoint === undefined) return unjudged(direction, 'the Service has no ready endpoint for this port')
  if (server === undefined) return unjudged(direction, 'nobody guards this end')
  const { port } = way.endpoint
  const source = way.translatedBy ?? way.source
  const own = server.identity.addresses
  // Through a Service its own packets leave the Pod and come back.
  if (own.includes(source) && own.includes(way.dialled.address)) {
    return unjudged(direction, "the Pod's own address is never judged")
  }
  if (client !== undefined && isIdentified(ends, way, protocol)) {
    const name = describe(client.identity)
    // Its own identity may come from its own node's address, as kube-proxy sends back what a Pod sends to itself.
    const isItself = client.identity.uid === server.identity.uid && server.judge.nodeAddresses.has(source)
    if (way.translatedBy !== undefined && !isItself) {
      return refused(server, direction, 'wit-address', name, [TRANSLATED])
    }
    if (client.revoked) return refused(server, direction, 'wit-void', name, [undoOf(client.identity)])
    return byPolicies(server, { direction, protocol, peer: identified(client.identity, way.source), port })
  }
  const meeting = { direction, protocol, port, witExpected: protocol === 'TCP' } as const
  const bytes = bytesOf(source)
  const judgement = judgeAddress(server.judge, meeting, bytes, 0, bytes.length)
  if (judgement.kind === 'unknown') throw new Error(`the directory does not answer for ${judgement.address}`)
  return settle(server, { direction, protocol, peer: judgement.peer, port }, judgement.decision, judgement.refusal)
}

const TRANSLATED =
  "connect to the Pod or to the Service's cluster address, or set externalTrafficPolicy: Local: by another address a node " +
  "puts its own in the place of the client's"

interface Asked {
  readonly direction: Direction
  readonly protocol: Protocol
  readonly peer: Peer
  /** The destination's real one. */
  readonly port: number
}

function identified(pod: PodIdentity, like: string): Peer {
  const address = pod.addresses.find((one) => familyOf(one) === familyOf(like)) ?? ''
  return { kind: 'identified', pod, address }
}

function byPolicies(guard: Guard, asked: Asked): Verdict {
  const { direction, peer, protocol, port } = asked
  const decision = guard.judge.policy?.evaluator.decide(direction, 0, peer, protocol, port)
  if (decision === undefined) throw new Error('the policies are not compiled')
  return settle(guard, asked, decision, 'policy')
}

/** A decision with what led to it. */
function settle(guard: Guard, asked: Asked, decision: Decision, refusal: Refusal): Verdict {
  const { direction, protocol, peer, port } = asked
  const explanation = explain(guard.policies, guard.identity, direction, peer, { protocol, port })
  const common = {
    direction,
    guard: guardFacts(guard),
    peer: describeKind(peer),
    decision,
    policies: explanation.policies,
  }
  if (decision.allowed) {
    const exempt = !explanation.decision.allowed
    const reason = exempt ? `${direction} allowed: ${exemptionOf(guard)}` : formatDecision(direction, decision)
    return { ...common, outcome: 'allowed', reason, wouldAllow: [] }
  }
  if (guard.revoked) {
    const reason = `${direction} denied: an operator revoked the Pod`
    return { ...common, ...denialOf(guard), refusal, reason, wouldAllow: [undoOf(guard.identity)] }
  }
  const suggestion = suggestPolicy(guard.policies, guard.identity, direction, peer, { protocol, port })
  const isPolicy = decision.isolatedBy.length > 0
  return {
    ...common,
    ...denialOf(guard),
    refusal,
    reason: isPolicy ? formatDecision(direction, decision) : `${direction} denied: ${REASONS[refusal] ?? refusal}`,
    wouldAllow: [...adviceOn(refusal, guard), ...(isPolicy ? explanation.wouldAllow : [])],
    ...(isPolicy && suggestion && { suggestion }),
  }
}

/** What a refusal means that no policy decided. */
const REASONS: Partial<Record<Refusal, string>> = {
  'no-wit': 'the peer is a guarded Pod, and its connection would show no identity',
  'wit-void': 'an operator revoked the peer, so its identity is void',
  'wit-address': "a node's address would stand in the place of the peer's, which its identity does not name",
}

function refused(
  guard: Guard,
  direction: Direction,
  refusal: Refusal,
  peer: string,
  wouldAllow: readonly string[],
): Verdict {
  const reason = `${direction} denied: ${REASONS[refusal] ?? refusal}`
  return { direction, ...denialOf(guard), refusal, reason, guard: guardFacts(guard), peer, wouldAllow }
}

function denialOf({ mode }: Guard): { readonly outcome: 'denied' | 'tolerated' } {
  return { outcome: mode === 'enforce' ? 'denied' : 'tolerated' }
}

function adviceOn(refusal: Refusal, { settings }: Guard): string[] {
  if (refusal !== 'no-wit') return []
  if (settings.peersWithoutIdentity === 'deny') {
    return ['guard the peer, or annotate this Pod synguard.io/peers-without-identity=resolve: now only addresses count']
  }
  return ["see that the dialled address is within the installation's clusterNetworks: elsewhere no identity is shown"]
}

function exemptionOf({ settings }: Guard): string {
  return settings.nodeAccess === 'all'
    ? "the Pod's own node may reach every port (synguard.io/node-access=all)"
    : "the Pod's own node may reach the ports of its probes"
}

function unjudged(direction: Direction, reason: string): Verdict {
  return { direction, outcome: 'unjudged', reason: `${direction} not judged: ${reason}`, wouldAllow: [] }
}

function guardFacts({ mode, modeBy, ready, revoked }: Guard): NonNullable<Verdict['guard']> {
  return { mode, ...(modeBy !== undefined && { modeBy }), ready, revoked }
}

function undoOf({ namespace, name }: PodIdentity): string {
  return `synguard revoke --undo ${namespace}/${name}`
}

function describe({ namespace, name }: PodIdentity): string {
  return `${namespace}/${name}, by its identity`
}

function describeKind(peer: Peer): string {
  switch (peer.kind) {
    case 'identified':
      return describe(peer.pod)
    case 'attested':
      return `${peer.pod.namespace}/${peer.pod.name}, by the labels of the Pod at ${peer.address}`
    case 'node':
      return `${peer.address}, a node`
    case 'external':
      return `${peer.address}, an address`
  }
}

function bytesOf(address: string): Buffer {
  return Buffer.from(parseAddress(address) ?? new Uint8Array(4))
}
