/** Verifies the WITs that the packet path has not seen yet, and gives each peer its row of the identity table. */
import type { TrustBundle, VoidEntry } from '../../api/identity.ts'
import { WitError } from '../../certs/errors.ts'
import { type VerifiedWit, verifyWit } from '../../certs/wit.ts'
import type { VerifiedPeer } from '../datapath/messages.ts'
import { witSectionParts } from '../handshake/frame.ts'
import type { Refusal } from '../handshake/reasons.ts'
import type { IdentityTable } from './identity-table.ts'

export interface VerifierOptions {
  readonly table: IdentityTable
  readonly trustDomain: string
  readonly issuer: string
  readonly skewSeconds: number
  readonly bundle: () => TrustBundle | undefined
  /** Asks the issuer for its bundle, because a WIT names a key that ours lacks. */
  readonly fetchBundle: () => Promise<void>
  readonly now: () => number
  readonly onResult: (result: string) => void
}

export interface Verifier {
  /** Resolves to the peer, or to why its WIT is refused; never rejects. */
  verify(section: Uint8Array): Promise<VerifiedPeer | Refusal>
  /** Notes that WITs of a Pod are void or stand with other labels. */
  addVoid(entry: VoidEntry): void
}

/** Unknown kids may come from anybody: one fetch of the bundle in this time. */
const BUNDLE_FETCH_MILLISECONDS = 10_000
/** More Pods with void WITs than a cluster relabels within one lifetime; the oldest is forgotten first. */
const MAXIMUM_VOIDS = 10_000

export function createVerifier(options: VerifierOptions): Verifier {
  const voids = new Map<string, VoidEntry>()
  let lastFetch = Number.NEGATIVE_INFINITY

  async function verifyOnce(section: Uint8Array): Promise<VerifiedWit | WitError> {
    const parts = witSectionParts(section)
    const bundle = options.bundle()
    if (!parts || !bundle) return new WitError('wit-format', 'no WIT section, or no trust bundle yet')
    try {
      return await verifyWit(
        {
          header: Buffer.from(parts.header),
          payload: Buffer.from(parts.payload),
          signature: Buffer.from(parts.signature),
        },
        bundle,
        {
          now: Math.floor(options.now() / 1000),
          trustDomain: options.trustDomain,
          issuer: options.issuer,
          skewSeconds: options.skewSeconds,
        },
      )
    } catch (error) {
      return error instanceof WitError ? error : new WitError('wit-format', 'the WIT cannot be decoded')
    }
  }

  async function verify(section: Uint8Array): Promise<VerifiedPeer | Refusal> {
    let wit = await verifyOnce(section)
    if (
      wit instanceof WitError &&
      wit.code === 'wit-unknown-key' &&
      options.now() - lastFetch > BUNDLE_FETCH_MILLISECONDS
    ) {
      lastFetch = options.now()
      await options.fetchBundle()
      wit = await verifyOnce(section)
    }
    if (wit instanceof WitError) {
      options.onResult(wit.code)
      return wit.code === 'wit-expired' ? 'wit-expired' : 'wit-invalid'
    }
    const entry = voids.get(wit.identity.uid)
    let identity = wit.identity
    if (entry && wit.issuedAt <= entry.iatBefore) {
      if (!entry.labels && !entry.namespaceLabels) {
        options.onResult('wit-void')
        return 'wit-void'
      }
      identity = relabelled(identity, entry)
    }
    const { kid, issuedAt, expiresAt } = wit
    const row = options.table.obtain({ identity, port: 0, kid, issuedAt, expiresAt })
    options.onResult(row ? 'ok' : 'busy')
    if (!row) return 'busy'
    return {
      index: row.index,
      identity,
      witHash: wit.sha256,
      cnf: wit.cnf,
      thumbprint: wit.cnfThumbprint,
      kid,
      issuedAt,
      expiresAt,
    }
  }

  return {
    verify,
    addVoid(entry) {
      voids.delete(entry.uid)
      if (voids.size >= MAXIMUM_VOIDS) {
        for (const oldest of voids.keys()) {
          voids.delete(oldest)
          break
        }
      }
      voids.set(entry.uid, entry)
    },
  }
}

/** The identity with the labels that a void entry puts in place of the WIT's. */
export function relabelled(identity: VerifiedPeer['identity'], entry: VoidEntry): VerifiedPeer['identity'] {
  return {
    ...identity,
    labels: entry.labels ?? identity.labels,
    namespaceLabels: entry.namespaceLabels ?? identity.namespaceLabels,
  }
}
