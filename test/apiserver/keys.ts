import type { V1Secret } from '@kubernetes/client-node'
import { createSigningKey, type SigningKey } from '../../certs/authority.ts'
import { activeKey, EMPTY_KEYRING, type Keyring, type KeyState } from '../../certs/rotation/keyring.ts'
import {
  parseIdentityKeyring,
  parseServingKeyring,
  serializeIdentityKeyring,
  serializeServingKeyring,
} from '../../certs/rotation/record.ts'
import type { ServingAuthority } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { caBundle, createServingMaterial } from '../../webhook/bootstrap/trust.ts'
import { SYSTEM } from './permissions.ts'

export const SECRETS = `/api/v1/namespaces/${SYSTEM}/secrets`

export interface Keys {
  readonly identity: Keyring<SigningKey>
  readonly serving: Keyring<ServingAuthority>
  /** All serving CAs, PEM. */
  readonly ca: string
  /** The kid that signs. */
  readonly kid: string | undefined
}

/** What the Secret holds. */
export async function readKeys(admin: ApiClient, secret: string): Promise<Keys> {
  const { data = {} } = await admin.send<V1Secret>({ method: 'GET', path: `${SECRETS}/${secret}` })
  const text = (entry: string) => data[entry] && Buffer.from(data[entry], 'base64').toString()
  const identity = parseIdentityKeyring(text('identity.json'))
  const serving = parseServingKeyring(text('serving.json'))
  return { identity, serving, ca: caBundle(serving), kid: activeKey(identity)?.id }
}

/** The Secret's `stringData`. */
export function serializeKeys(identity: Keyring<SigningKey>, serving: Keyring<ServingAuthority>) {
  return { 'identity.json': serializeIdentityKeyring(identity), 'serving.json': serializeServingKeyring(serving) }
}

/** `ring`, if any, and a fresh key in that state; the one that was active is previous then, if the fresh one is active. */
export function withKey<Material>(
  ring: Keyring<Material> = EMPTY_KEYRING,
  fresh: { readonly id: string; readonly material: Material },
  state: KeyState = 'active',
): Keyring<Material> {
  const now = Math.floor(Date.now() / 1_000)
  const generation = Math.max(ring.generation + 1, now)
  const stamp = { generation, since: now }
  const before = ring.keys.map((key) => (state === 'active' ? { ...key, ...stamp, state: 'previous' as const } : key))
  return { ...ring, generation, keys: [...before, { ...fresh, ...stamp, state, lifetimeSeconds: 3_600 }] }
}

export function freshIdentity() {
  const material = createSigningKey()
  return { id: material.kid, material }
}

export const freshServing = () => createServingMaterial(Math.floor(Date.now() / 1_000))
