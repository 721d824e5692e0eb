import { createHash } from 'node:crypto'
import { parseSigningKey, type SigningKey, serializeSigningKey } from '../authority.ts'
import { AuthorityError, type AuthorityErrorCode } from '../errors.ts'
import { WIT_LIFETIME_MAX_SECONDS } from '../limits.ts'
import type { ServingAuthority } from '../serving.ts'
import { EMPTY_KEYRING, findFault, KEY_STATES, type Keyring, type RingKey } from './keyring.ts'

/**
 * A keyring as an entry of the Secret: a JSON list, in which each item has `state` and the key itself as it always had
 * (an earlier version reads those and ignores the rest), and the active one also has what is of the keyring.
 */
interface EntryFormat<Material> {
  /** Of the Secret, for messages. */
  readonly entry: string
  readonly code: AuthorityErrorCode
  /** Of items that an earlier version wrote, which did not say. */
  readonly lifetimeSeconds: number
  encode(material: Material): Fields
  /** Throws AuthorityError without what it read. */
  decode(fields: Fields): { readonly id: string; readonly material: Material }
}

type Fields = Readonly<Record<string, unknown>>

const IDENTITY: EntryFormat<SigningKey> = {
  entry: 'identity.json',
  code: 'authority-key',
  // Nobody knows how long identities lived then.
  lifetimeSeconds: WIT_LIFETIME_MAX_SECONDS,
  encode: (key) => ({ key: JSON.parse(serializeSigningKey(key)) as unknown }),
  decode({ key }) {
    const material = parseSigningKey(JSON.stringify(key))
    return { id: material.kid, material }
  },
}

const SERVING: EntryFormat<ServingAuthority> = {
  entry: 'serving.json',
  code: 'authority-serving',
  // Each replica has replaced its certificate by the time that nobody signs by the key any more.
  lifetimeSeconds: 0,
  encode: ({ certificatePem, privateKeyPem }) => ({ certificate: certificatePem, key: privateKeyPem }),
  decode({ certificate, key }) {
    if (typeof certificate !== 'string' || typeof key !== 'string') {
      throw new AuthorityError('authority-serving', 'serving.json: an item lacks certificate or key.')
    }
    const material = { certificatePem: certificate, privateKeyPem: key }
    return { id: servingKeyId(material), material }
  },
}

/** What a serving CA is called: the SHA-256 of its certificate, as PEM, in hex. */
export function servingKeyId({ certificatePem }: ServingAuthority): string {
  return createHash('sha256').update(certificatePem.trim()).digest('hex')
}

/** The text of `identity.json`; private, for a Secret alone. */
export const serializeIdentityKeyring = (ring: Keyring<SigningKey>): string => serialize(IDENTITY, ring)
/** The text of `serving.json`; private, for a Secret alone. */
export const serializeServingKeyring = (ring: Keyring<ServingAuthority>): string => serialize(SERVING, ring)

/**
 * Reads `identity.json`, of this or an earlier version; an empty keyring where there is none. Throws AuthorityError
 * `authority-key`, without what it read.
 */
export const parseIdentityKeyring = (text: string | undefined): Keyring<SigningKey> => parse(IDENTITY, text)
/** The same of `serving.json`. Throws AuthorityError `authority-serving`. */
export const parseServingKeyring = (text: string | undefined): Keyring<ServingAuthority> => parse(SERVING, text)

function serialize<Material>(format: EntryFormat<Material>, ring: Keyring<Material>): string {
  const { keys, ...ofRing } = ring
  return JSON.stringify(
    keys.map(({ id: _, material, ...fields }) => ({
      ...fields,
      ...format.encode(material),
      // There always is an active one.
      ...(fields.state === 'active' ? { ring: ofRing } : {}),
    })),
  )
}

function parse<Material>(format: EntryFormat<Material>, text: string | undefined): Keyring<Material> {
  if (text === undefined || text === '') return EMPTY_KEYRING
  const { entry, code } = format
  const items = parseItems(format, text)
  const keys = items.map((fields) => parseKey(format, fields))
  const ofRing = asFields(items.find(({ state }) => state === 'active')?.ring)
  const generations = keys.flatMap((key) => [key.generation, key.confirmed?.generation ?? 0])
  const generation = Math.max(readInteger(format, 'ring.generation', ofRing.generation, 0), ...generations)
  const { request } = ofRing
  if (request !== undefined && typeof request !== 'string') throw wrong(format, 'ring.request is no text')
  const ring = { generation, keys, ...(request === undefined ? {} : { request }) }
  const fault = keys.length === 0 ? 'the list is empty' : findFault(ring)
  if (fault !== undefined) throw new AuthorityError(code, `${entry}: ${fault}.`)
  return ring
}

function parseItems(format: EntryFormat<unknown>, text: string): readonly Fields[] {
  let items: unknown
  try {
    items = JSON.parse(text)
  } catch {
    // No cause: JSON.parse quotes its input.
    throw wrong(format, 'no JSON; restore it, or empty the Secret to start anew')
  }
  if (!Array.isArray(items)) throw wrong(format, 'no list')
  return items.map(asFields)
}

function parseKey<Material>(format: EntryFormat<Material>, fields: Fields): RingKey<Material> {
  const state = KEY_STATES.find((known) => known === fields.state)
  if (state === undefined) throw wrong(format, `a state is not one of ${KEY_STATES.join(', ')}`)
  const integer = (name: string, missing: number) => readInteger(format, name, fields[name], missing)
  const confirmed = asFields(fields.confirmed)
  return {
    ...format.decode(fields),
    state,
    generation: integer('generation', 0),
    since: integer('since', 0),
    lifetimeSeconds: integer('lifetimeSeconds', format.lifetimeSeconds),
    ...(fields.confirmed !== undefined && {
      confirmed: {
        generation: readInteger(format, 'confirmed.generation', confirmed.generation),
        at: readInteger(format, 'confirmed.at', confirmed.at),
      },
    }),
    ...readFlag(format, 'compromised', fields.compromised),
    ...readFlag(format, 'forced', fields.forced),
    ...readFlag(format, 'aborted', fields.aborted),
  }
}

function asFields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {}
}

function readInteger(format: EntryFormat<unknown>, name: string, value: unknown, missing?: number): number {
  const found = value ?? missing
  if (typeof found !== 'number' || !Number.isSafeInteger(found) || found < 0) {
    throw wrong(format, `${name} is no whole number`)
  }
  return found
}

function readFlag<Name extends string>(format: EntryFormat<unknown>, name: Name, value: unknown) {
  if (value === undefined) return {}
  if (value !== true) throw wrong(format, `${name} can only be true`)
  return { [name]: true } as { readonly [key in Name]: true }
}

function wrong({ entry, code }: EntryFormat<unknown>, what: string): AuthorityError {
  return new AuthorityError(code, `${entry}: ${what}.`)
}
