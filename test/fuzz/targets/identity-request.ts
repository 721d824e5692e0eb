import { createHash } from 'node:crypto'
import { SynguardError } from '../../../api/errors.ts'
import { isGuarded } from '../../../webhook/admission/pod.ts'
import { refusalOf, WebhookError } from '../../../webhook/errors.ts'
import { createIssuer } from '../../../webhook/issuer/issuer.ts'
import { createVoidList } from '../../../webhook/issuer/voids.ts'
import { createMemoryCluster } from '../../../webhook/memory-cluster.ts'
import { createWebhookSettings } from '../../../webhook/settings.ts'
import { parseStreamRequest } from '../../../webhook/stream.ts'
import { createFixedAuthority } from '../../fixtures/authority.ts'
import { guardedPod, namespace } from '../../unit/webhook/fixtures.ts'
import { applyEdits, NO_EDIT } from '../edits.ts'
import { knownKey, signCompact } from '../keys.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, textOf, unfold } from '../values.ts'

const NOW = 1_790_000_000
const now = () => NOW
const cluster = createMemoryCluster({ now })
cluster.put('Namespace', namespace())
cluster.put('Pod', guardedPod())
/** Random, so no input holds it: there `$token` stands for it and `$hash` for its SHA-256. */
const TOKEN = cluster.mintToken({ namespace: 'shop', podName: 'web', audience: 'synguard' })
const HASH = createHash('sha256').update(TOKEN).digest('base64url')
const KEY = knownKey(1)
const POD_KEY = knownKey(2)
const { kid: _, ...JWK } = POD_KEY.publicJwk

const HEADER: Json = { alg: 'ES256', typ: 'synguard-token-proof+jwt', jwk: JWK }
const CLAIMS: Json = { aud: 'synguard', tkh: '$hash', iat: NOW, jti: 'AAAAAAAAAAAAAAAAAAAAAA' }

function createFreshIssuer() {
  const authority = createFixedAuthority(KEY)
  const voids = createVoidList({ now, keepSeconds: 3_720 })
  return createIssuer({ cluster, authority, voids, settings: createWebhookSettings(), isGuarded, now, podWaitMs: 1 })
}

function fill(value: Json): Json {
  return JSON.parse(JSON.stringify(unfold(value)).replaceAll('$token', TOKEN).replaceAll('$hash', HASH))
}

/** Refusals by our own errors alone, with a status and a message that says nothing of the token. */
function refusal(error: unknown): string {
  if (!(error instanceof SynguardError)) throw error
  const { status, code, message } = refusalOf(error)
  hold(status >= 400 && status < 600 && code !== 'internal', 'a refusal is one of those that are documented')
  hold(!message.includes(TOKEN), 'a refusal never says the token')
  return code
}

async function checkIdentity(body: Json, intact: boolean, address: string): Promise<string> {
  try {
    const { wit } = await createFreshIssuer().issue(body, address)
    hold(intact && address === '127.0.0.1', 'only an intact proof from the address of the Pod gets an identity')
    return wit === '' ? 'empty' : 'issued'
  } catch (error) {
    return refusal(error)
  }
}

export const identityRequestTarget = valueTarget({
  name: 'identity-request',
  about: 'bodies of /v1/identity with proofs of any shape, and of /v1/stream: documented refusals, or an identity',
  sources: ['webhook/issuer/issuer.ts', 'webhook/issuer/replay.ts', 'certs/possession.ts'],
  batch: 16,
  seeds: [
    { token: '$token', header: HEADER, claims: CLAIMS, edits: [], address: '127.0.0.1' },
    {
      token: '$token',
      header: HEADER,
      claims: CLAIMS,
      edits: [NO_EDIT, { at: 30, remove: 1, insert: 'A' }],
      address: '127.0.0.1',
    },
    { token: '$token', header: HEADER, claims: CLAIMS, edits: [], address: '10.0.0.1' },
    {
      token: '$token',
      header: HEADER,
      claims: { ...(CLAIMS as object), tkh: 'AAAA' },
      edits: [],
      address: '127.0.0.1',
    },
    { token: 'x.y.z', header: { alg: 'none' }, claims: CLAIMS, edits: [], address: '' },
    { body: { token: 'a', proof: 'b.c.d' }, address: '127.0.0.1' },
    { stream: { bundle: [KEY.kid], addresses: ['10.0.0.1', 'fd00::1'] } },
  ],
  words: ['none', 'HS256', 'wpt+jwt', '.', '=', '$token', '$hash', 'crit', 'b64', 'd'],
  async check(input) {
    const { token, header, claims, edits, address, body, stream } = isObject(input) ? input : {}
    if (stream !== undefined) {
      try {
        const { addresses } = parseStreamRequest(unfold(stream))
        return `stream-${Math.min(addresses.length, 3)}`
      } catch (error) {
        hold(error instanceof WebhookError, 'a stream request is refused by WebhookError')
        return refusal(error)
      }
    }
    const from = textOf(address ?? '')
    if (body !== undefined) return checkIdentity(fill(body), false, from)
    const signed = signCompact(
      POD_KEY,
      JSON.stringify(fill(header ?? null)),
      Buffer.from(JSON.stringify(fill(claims ?? null))),
    )
    const proof = applyEdits(signed, edits)
    const { tkh, aud } = isObject(claims ?? null) ? (fill(claims ?? null) as { [key: string]: Json }) : {}
    const isIntact = proof === signed && tkh === HASH && aud === 'synguard'
    return checkIdentity({ token: fill(token ?? null), proof }, isIntact, from)
  },
})
