/** Reads and writes the authority's Secret as the first version did, which knew of no rotation. */
import { createSigningKey, parseSigningKey, type SigningKey, serializeSigningKey } from '../../../../certs/authority.ts'
import { AuthorityError } from '../../../../certs/errors.ts'
import { createServingAuthority, type ServingAuthority } from '../../../../certs/serving.ts'

/** What the replicas share: the authority's keys and the serving CAs, as one Secret holds them. */
export interface Trust {
  /** All of them verify; in the order of their age. */
  readonly signingKeys: readonly SigningKey[]
  /** The one that signs. */
  readonly signingKey: SigningKey
  /** All of them are in caBundle and in the namespaces' ConfigMaps. */
  readonly servingAuthorities: readonly ServingAuthority[]
  /** The one that signs the replicas' certificates. */
  readonly servingAuthority: ServingAuthority
}

/** Entries of the Secret: JSON lists, each item with its `state`, of which one is `active`. */
const IDENTITY_ENTRY = 'identity.json'
const SERVING_ENTRY = 'serving.json'

/** As design section 10 names them; who is not active only verifies. */
const STATES = ['prepared', 'active', 'previous'] as const
type State = (typeof STATES)[number]

/** The entries of a Secret's `stringData`. */
export function serializeTrust(trust: Trust): Record<string, string> {
  const stateOf = <Item>(item: Item, active: Item): State => (item === active ? 'active' : 'previous')
  const identity = trust.signingKeys.map((key) => ({
    state: stateOf(key, trust.signingKey),
    key: JSON.parse(serializeSigningKey(key)) as unknown,
  }))
  const serving = trust.servingAuthorities.map((authority) => ({
    state: stateOf(authority, trust.servingAuthority),
    certificate: authority.certificatePem,
    key: authority.privateKeyPem,
  }))
  return { [IDENTITY_ENTRY]: JSON.stringify(identity), [SERVING_ENTRY]: JSON.stringify(serving) }
}

/**
 * Reads the `data` of a Secret; undefined where it has none of our entries yet. Throws AuthorityError `authority-key` or
 * `authority-serving`, without what it read: what is damaged must be mended or removed by hand, as it may be all that
 * verifies the identities that are out.
 */
export function parseTrust(data: Readonly<Record<string, string>> | undefined): Trust | undefined {
  const identityText = decodeEntry(data, IDENTITY_ENTRY)
  const servingText = decodeEntry(data, SERVING_ENTRY)
  if (identityText === undefined && servingText === undefined) return undefined
  const keys = readItems(identityText, 'authority-key', IDENTITY_ENTRY).map(({ state, fields }) => ({
    state,
    value: parseSigningKey(JSON.stringify(fields.key)),
  }))
  const authorities = readItems(servingText, 'authority-serving', SERVING_ENTRY).map(({ state, fields }) => {
    const { certificate, key } = fields
    if (typeof certificate !== 'string' || typeof key !== 'string') {
      throw new AuthorityError('authority-serving', `${SERVING_ENTRY}: an item lacks certificate or key.`)
    }
    return { state, value: { certificatePem: certificate, privateKeyPem: key } }
  })
  return {
    signingKeys: keys.map(({ value }) => value),
    signingKey: activeOf(keys, 'authority-key', IDENTITY_ENTRY),
    servingAuthorities: authorities.map(({ value }) => value),
    servingAuthority: activeOf(authorities, 'authority-serving', SERVING_ENTRY),
  }
}

function decodeEntry(data: Readonly<Record<string, string>> | undefined, entry: string): string | undefined {
  const text = data?.[entry]
  return text === undefined || text === '' ? undefined : Buffer.from(text, 'base64').toString('utf8')
}

type Code = 'authority-key' | 'authority-serving'

function readItems(text: string | undefined, code: Code, entry: string) {
  let items: unknown
  try {
    items = JSON.parse(text ?? '')
  } catch {
    // No cause: JSON.parse quotes its input.
    throw new AuthorityError(code, `${entry} is missing or no JSON; restore it, or empty the Secret to start anew.`)
  }
  if (!Array.isArray(items)) throw new AuthorityError(code, `${entry} is no list.`)
  return items.map((item: unknown) => {
    const fields = (typeof item === 'object' && item !== null ? item : {}) as Record<string, unknown>
    const state = STATES.find((known) => known === fields.state)
    if (state === undefined) throw new AuthorityError(code, `${entry}: a state is not one of ${STATES.join(', ')}.`)
    return { state, fields }
  })
}

function activeOf<Value>(items: readonly { state: State; value: Value }[], code: Code, entry: string): Value {
  const [active, ...others] = items.filter(({ state }) => state === 'active')
  if (active === undefined || others.length > 0)
    throw new AuthorityError(code, `${entry} needs exactly one active item.`)
  return active.value
}

/** A fresh authority: one signing key, one serving CA. */
export function createTrust(now: number): Trust {
  const signingKey = createSigningKey()
  const servingAuthority = createServingAuthority({ now, lifetimeSeconds: 5 * 365 * 86_400 })
  return { signingKeys: [signingKey], signingKey, servingAuthorities: [servingAuthority], servingAuthority }
}
