import { randomBytes } from 'node:crypto'
import type { V1PodSpec } from '@kubernetes/client-node'
import type { IdentityRequest, IdentityResponse, PodIdentity } from '../../api/identity.ts'
import { verifyRequestProof, verifyTokenProof } from '../../certs/possession.ts'
import { issueWit, type VerifiedWit, verifyWit } from '../../certs/wit.ts'
import type { Cluster } from '../cluster.ts'
import { podIdentity } from '../directory/pod-identity.ts'
import { WebhookError } from '../errors.ts'
import { IDENTITY_IN_FLIGHT, TOKEN_BYTES } from '../limits.ts'
import type { WebhookSettings } from '../settings.ts'
import { attestPod, reviewBoundToken } from './attest.ts'
import type { Authority } from './authority.ts'
import type { Ledger } from './ledger.ts'
import { sameLabels } from './outdated.ts'
import { createReplayCache } from './replay.ts'
import type { VoidList } from './voids.ts'

/** Attests Pods and signs their WITs; verifies the WITs of sidecars that ask for more. */
export interface Issuer {
  /** A WIT for the Pod that the token of `body` is bound to. `remoteAddress` is canonical. Rejects with SynguardError. */
  issue(body: unknown, remoteAddress: string): Promise<IdentityResponse & { readonly uid: string }>
  /** Who makes a request, by its WIT and the proof of its cnf key for `htu`. Rejects with SynguardError. */
  authenticate(request: AuthenticatedRequest): Promise<VerifiedWit>
}

export interface AuthenticatedRequest {
  readonly wit: string | undefined
  readonly proof: string | undefined
  /** Path and query. */
  readonly htu: string
  /** Canonical. */
  readonly remoteAddress: string
}

export interface IssuerOptions {
  readonly cluster: Cluster
  readonly authority: Authority
  readonly voids: VoidList
  readonly settings: WebhookSettings
  readonly isGuarded: (spec: V1PodSpec) => boolean
  /** Whether the cluster and what is void is known; the cluster's word without it. */
  readonly synced?: () => boolean
  readonly ledger?: Pick<Ledger, 'record'>
  /** Seconds since the epoch. */
  readonly now: () => number
  /** How long to wait for a Pod's address. */
  readonly podWaitMs?: number
}

export function createIssuer(options: IssuerOptions): Issuer {
  const { cluster, authority, voids, settings, isGuarded, ledger, now, podWaitMs, synced = cluster.synced } = options
  const replay = createReplayCache({ now })
  /** uids of Pods whose request is under way. */
  const pods = new Set<string>()
  let inFlight = 0

  async function issueForPod(request: IdentityRequest, remoteAddress: string) {
    const proof = await verifyTokenProof(request.proof, request.token, now())
    const token = await reviewBoundToken(cluster, request.token)
    replay.use(token.podUid, proof.jti)
    return alone(pods, token.podUid, async () => {
      const attestOptions = { cluster, namespaceLabel: settings.namespaceLabel, isGuarded, now }
      const { pod, namespace, deletedAt } = await attestPod(
        podWaitMs === undefined ? attestOptions : { ...attestOptions, waitMs: podWaitMs },
        token,
        remoteAddress,
      )
      const identity = podIdentity(pod, namespace, true)
      await ledger?.record(identity)
      if (voids.isBlocked(token.podUid)) throw new WebhookError('identity-revoked', 'An operator revoked the Pod.')
      const issuedAt = now()
      if (issuedAt < voids.issuableFrom(token.podUid) || !isStill(identity)) {
        throw new WebhookError('identity-not-yet', 'Identities of this second are void; ask again.')
      }
      const { key, lifetimeSeconds } = authority.signer()
      const lifetime = Math.min(settings.witLifetimeSeconds, lifetimeSeconds)
      const expiresAt = Math.min(issuedAt + lifetime, deletedAt ?? Number.POSITIVE_INFINITY)
      const wit = await issueWit(key, {
        identity,
        cnf: proof.jwk,
        trustDomain: settings.trustDomain,
        issuer: settings.issuer,
        issuedAt,
        lifetimeSeconds: expiresAt - issuedAt,
        jti: randomBytes(16).toString('base64url'),
      })
      return { wit, bundle: authority.bundle(), uid: token.podUid }
    })
  }

  /** Whether the cluster still says so: what changed while we waited was voided before this WIT's time. */
  function isStill(identity: PodIdentity): boolean {
    const pod = cluster.get('Pod', identity.name, identity.namespace)
    const namespace = cluster.get('Namespace', identity.namespace)
    return (
      pod?.metadata?.uid === identity.uid &&
      sameLabels(pod.metadata.labels, identity.labels) &&
      sameLabels(namespace?.metadata?.labels, identity.namespaceLabels)
    )
  }

  return {
    async issue(body, remoteAddress) {
      const request = parseIdentityRequest(body)
      if (!synced()) throw new WebhookError('cluster-unavailable', 'The cluster is not known yet.')
      if (inFlight >= IDENTITY_IN_FLIGHT) throw new WebhookError('busy', 'Too many identity requests are under way.')
      inFlight++
      try {
        return await issueForPod(request, remoteAddress)
      } finally {
        inFlight--
      }
    },
    async authenticate({ wit, proof, htu, remoteAddress }) {
      if (wit === undefined || proof === undefined) {
        throw new WebhookError('wit-missing', 'The request shows no identity token with a proof.')
      }
      const { trustDomain, issuer, skewSeconds } = settings
      const verified = await verifyWit(wit, authority.lastBundle(), { now: now(), trustDomain, issuer, skewSeconds })
      const { uid, addresses } = verified.identity
      if (voids.isRevoked(uid, verified.issuedAt)) throw new WebhookError('wit-void', 'The identity was revoked.')
      if (!addresses.includes(remoteAddress)) {
        throw new WebhookError('address-mismatch', `The request comes from ${remoteAddress}, not from its Pod.`)
      }
      const { jti } = await verifyRequestProof(proof, verified.cnf, { htu, now: now() })
      replay.use(uid, jti)
      return verified
    },
  }
}

/** One request a Pod at a time: a sidecar has no use for two, and whoever has its token could else keep us waiting. */
async function alone<Result>(running: Set<string>, uid: string, work: () => Promise<Result>): Promise<Result> {
  if (running.has(uid)) throw new WebhookError('busy', 'A request of this Pod is under way.')
  running.add(uid)
  try {
    return await work()
  } finally {
    running.delete(uid)
  }
}

function parseIdentityRequest(body: unknown): IdentityRequest {
  const { token, proof } = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  if (typeof token !== 'string' || token === '' || token.length > TOKEN_BYTES) {
    throw new WebhookError('request-invalid', `token must be a text of at most ${TOKEN_BYTES} characters.`)
  }
  if (typeof proof !== 'string' || proof === '') throw new WebhookError('request-invalid', 'proof must be a text.')
  return { token, proof }
}
