/** Verifies the WITs that the packet path has not seen yet, and gives each peer its row of the identity table. */
import type { KeyObject } from 'node:crypto'
import type { TrustBundle, VoidEntry } from '../../api/identity.ts'
import { WitError } from '../../certs/errors.ts'
import { type VerifiedWit, verifyWit } from '../../certs/wit.ts'
import type { VerifiedPeer } from '../datapath/messages.ts'
import { witSectionParts } from '../handshake/frame.ts'
import { sharedSecret } from '../handshake/keys.ts'
import type { Refusal } from '../handshake/reasons.ts'
import type { IdentityTable } from './identity-table.ts'
import { createVoids, type Voids } from './voids.ts'

export interface VerifierOptions {
  readonly table: IdentityTable
  readonly trustDomain: string
  readonly issuer: string
  readonly skewSeconds: number
  readonly bundle: () => TrustBundle | undefined
  /** The key that pairs are made with: that of the own identity, where there is one. */
  readonly own: () => { readonly generation: number; readonly privateKey: KeyObject } | undefined
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
  /** The identity that a WIT issued then stands for now. */
  currentIdentity: Voids['currentIdentity']
}

/** Unknown kids may come from anybody: one fetch of the bundle in this time. */
const BUNDLE_FETCH_MILLISECONDS = 10_000

export function createVerifier(options: VerifierOptions): Verifier {
  const voids = createVoids()
  let fetching: Promise<void> | undefined
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

  /** True once a fresh bundle is here, whoever asked for it; false where the last fetch was too short a while ago. */
  async function fetchBundle(): Promise<boolean> {
    if (!fetching) {
      if (options.now() - lastFetch <= BUNDLE_FETCH_MILLISECONDS) return false
      lastFetch = options.now()
      fetching = options.fetchBundle().finally(() => {
        fetching = undefined
      })
    }
    await fetching
    return true
  }

  async function verify(section: Uint8Array): Promise<VerifiedPeer | Refusal> {
    let wit = await verifyOnce(section)
    if (wit instanceof WitError && wit.code === 'wit-unknown-key' && (await fetchBundle())) {
      wit = await verifyOnce(section)
    }
    if (wit instanceof WitError) {
      options.onResult(wit.code)
      return wit.code === 'wit-expired' ? 'wit-expired' : 'wit-invalid'
    }
    const identity = voids.currentIdentity(wit.identity, wit.issuedAt)
    if (identity === 'void') {
      options.onResult('wit-void')
      return 'wit-void'
    }
    const { kid, issuedAt, expiresAt } = wit
    const row = options.table.obtain({ identity, port: 0, kid, issuedAt, expiresAt })
    options.onResult(row ? 'ok' : 'busy')
    if (!row) return 'busy'
    const own = options.own()
    return {
      index: row.index,
      identity,
      witHash: wit.sha256,
      cnf: wit.cnf,
      ...(own && { shared: { generation: own.generation, secret: sharedSecret(own.privateKey, wit.cnfKey) } }),
      thumbprint: wit.cnfThumbprint,
      kid,
      issuedAt,
      expiresAt,
    }
  }

  return {
    verify,
    addVoid: voids.add,
    currentIdentity: voids.currentIdentity,
  }
}
