import { isDeepStrictEqual } from 'node:util'
import { deflateRawSync } from 'node:zlib'
import { trustBundle } from '../../../certs/authority.ts'
import { encodeClaims, parseClaims } from '../../../certs/claims.ts'
import { WitError } from '../../../certs/errors.ts'
import { WIT_INFLATED_BYTES, WIT_PARTS_BYTES } from '../../../certs/limits.ts'
import { verifyWit } from '../../../certs/wit.ts'
import { decodeWitParts, joinWitParts, witPartsBytes } from '../../../certs/wit-parts.ts'
import { createFrame, decodeFrame, encodeSynAckFrame, encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import { EXPECTED, NOW, PAYMENTS } from '../../unit/certs/fixtures.ts'
import { applyEdits, NO_EDIT } from '../edits.ts'
import { knownKey, signCompact } from '../keys.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const KEY = knownKey(1)
const BUNDLE = trustBundle([KEY, knownKey(2)])
const HEADER: Json = { alg: 'ES256', kid: KEY.kid, typ: 'wit+jwt', zip: 'DEF' }
const { kid: _, ...CNF } = knownKey(3).publicJwk

const CLAIMS: Json = JSON.parse(
  encodeClaims({
    issuer: EXPECTED.issuer,
    trustDomain: EXPECTED.trustDomain,
    identity: PAYMENTS,
    cnf: CNF,
    issuedAt: NOW - 10,
    expiresAt: NOW + 3_000,
    jti: 'AAAAAAAAAAAAAAAAAAAAAA',
  }).toString(),
)
const SMALL = { ...(isObject(CLAIMS) ? CLAIMS : {}), pod: { ...PAYMENTS, labels: {}, namespaceLabels: {}, ports: [] } }
const { namespace, serviceAccount, ...SMALL_POD } = SMALL.pod

/** header and claims are signed as they are; edits change the signed text, payloadEdits what is deflated. */
function seed(changes: { readonly [key: string]: Json }): Json {
  return { header: HEADER, claims: CLAIMS, edits: [], payloadEdits: [], ...changes }
}

const SEEDS: readonly Json[] = [
  seed({}),
  seed({ claims: { ...SMALL, pod: SMALL_POD } as Json }),
  seed({ claims: { ...SMALL, pod: { ...SMALL_POD, degraded: ['app: NET_RAW'] } } as Json }),
  seed({ edits: [NO_EDIT, { at: 100, remove: 1, insert: 'A' }] }),
  seed({ edits: [{ at: 0, remove: 0, insert: 'eyJhbGciOiJub25lIn0.' }] }),
  seed({ payloadEdits: [{ at: 5, remove: 0, insert: ' ' }] }),
  seed({ claims: { $text: '0', times: 100_000 } }),
]

export const witTarget = valueTarget({
  name: 'wit',
  about: 'WITs signed by the authority with claims, headers and texts of any shape: WitError or what was signed',
  sources: ['certs/wit', 'certs/claims.ts', 'policy/address.ts'],
  batch: 16,
  seeds: SEEDS,
  words: [
    'none',
    'HS256',
    'DEF',
    'crit',
    'b64',
    'spiffe://',
    'ns',
    'sa',
    '.',
    '=',
    'app.kubernetes.io/',
    'TCP',
    '::',
    '10.0.0.1',
    '::ffff:10.0.0.1',
  ],
  async check(input) {
    const { header, claims, edits, payloadEdits } = isObject(input) ? input : {}
    const json = applyEdits(JSON.stringify(unfold(claims ?? null)), payloadEdits)
    const signed = signCompact(KEY, JSON.stringify(unfold(header ?? null)), deflateRawSync(Buffer.from(json)))
    const compact = applyEdits(signed, edits)
    try {
      const parts = decodeWitParts(compact)
      hold(joinWitParts(parts) === compact, 'the parts of a token join to that very token')
      hold(witPartsBytes(parts) <= WIT_PARTS_BYTES, 'the parts of a token fit a frame')
      const frame = encodeSynAckFrame(6, encodeWitSection(parts))
      hold(decodeFrame(frame, 0, frame.length, createFrame()) === 'ok', 'a token that decodes makes a good frame')
      const verified = await verifyWit(compact, BUNDLE, EXPECTED)
      hold(compact === signed, 'a token that was changed after it was signed does not verify')
      hold(verified.expiresAt - verified.issuedAt <= 86_400, 'no token lives longer than a day')
      const parsed = parseClaims(Buffer.from(json))
      hold(isDeepStrictEqual(parseClaims(encodeClaims(parsed)), parsed), 'claims survive encoding')
      hold(isDeepStrictEqual(parsed.identity, verified.identity), 'what verifies is what was claimed')
      return 'verified'
    } catch (error) {
      if (!(error instanceof WitError)) throw error
      hold(error.message.length < 8_192, 'an error message is short')
      const isBomb = Buffer.byteLength(json) > WIT_INFLATED_BYTES
      hold(!isBomb || error.code !== 'wit-claims', 'claims are not read of a payload that inflates beyond the bound')
      return error.code
    }
  },
})
