import { X509Certificate } from 'node:crypto'
import { createSigningKey, type SigningKey } from '../../certs/authority.ts'
import { activeKey, type Keyring } from '../../certs/rotation/keyring.ts'
import { servingKeyId } from '../../certs/rotation/record.ts'
import { createServingAuthority, type ServingAuthority } from '../../certs/serving.ts'

/** The CA is replaced by itself at four fifths of its life. */
export const SERVING_CA_LIFETIME_SECONDS = 5 * 365 * 86_400

export function createIdentityMaterial(): { readonly id: string; readonly material: SigningKey } {
  const material = createSigningKey()
  return { id: material.kid, material }
}

/** `now` is seconds since the epoch. */
export function createServingMaterial(now: number): { readonly id: string; readonly material: ServingAuthority } {
  const material = createServingAuthority({ now, lifetimeSeconds: SERVING_CA_LIFETIME_SECONDS })
  return { id: servingKeyId(material), material }
}

/** All serving CAs as one text, for caBundle and ConfigMaps. */
export function caBundle({ keys }: Keyring<ServingAuthority>): string {
  return keys.map(({ material }) => `${material.certificatePem.trim()}\n`).join('')
}

/** When the active CA's certificate ends, in seconds since the epoch. */
export function caEnd(ring: Keyring<ServingAuthority> | undefined): number {
  const active = ring && activeKey(ring)
  return active === undefined ? 0 : Date.parse(new X509Certificate(active.material.certificatePem).validTo) / 1_000
}
