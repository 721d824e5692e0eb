import type { V1Secret } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import { createSigningKey } from '../../certs/authority.ts'
import type { AuthorityError } from '../../certs/errors.ts'
import { createServingAuthority } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { hasStatus } from '../../kubernetes/errors.ts'
import { createReflector } from '../../kubernetes/reflector.ts'
import { parseTrust, serializeTrust, type Trust } from './trust.ts'

export interface SecretOptions {
  readonly client: ApiClient
  readonly namespace: string
  readonly name: string
  /** Seconds since the epoch. */
  readonly now: () => number
}

/** Until rotation moves it; a certificate that nobody renews must not end before anybody looks. */
const SERVING_CA_LIFETIME_SECONDS = 5 * 365 * 86_400

/** A fresh authority: one signing key, one serving CA. */
export function createTrust(now: number): Trust {
  const signingKey = createSigningKey()
  const servingAuthority = createServingAuthority({ now, lifetimeSeconds: SERVING_CA_LIFETIME_SECONDS })
  return { signingKeys: [signingKey], signingKey, servingAuthorities: [servingAuthority], servingAuthority }
}

/**
 * The trust that the Secret holds; where it holds none, a fresh one is written, and only one replica's writing succeeds:
 * creation fails where the Secret came first, an update where its resourceVersion is not the one that was read. Whoever
 * loses reads again. Rejects with ApiError where the API server refuses, AuthorityError where the Secret is damaged.
 */
export async function obtainTrust(options: SecretOptions): Promise<{ trust: Trust; created: boolean }> {
  let fresh: Trust | undefined
  for (;;) {
    const secret = await readSecret(options)
    const found = parseTrust(secret?.data)
    if (found !== undefined) return { trust: found, created: false }
    fresh ??= createTrust(options.now())
    if (await writeTrust(options, secret, fresh)) return { trust: fresh, created: true }
  }
}

async function readSecret({ client, namespace, name }: SecretOptions): Promise<V1Secret | undefined> {
  try {
    return await client.send<V1Secret>({ method: 'GET', path: `/api/v1/namespaces/${namespace}/secrets/${name}` })
  } catch (error) {
    if (hasStatus(error, 404)) return undefined
    throw error
  }
}

/** Whether it was written: false where somebody else was first. */
async function writeTrust(options: SecretOptions, found: V1Secret | undefined, trust: Trust): Promise<boolean> {
  const { client, namespace, name } = options
  const path = `/api/v1/namespaces/${namespace}/secrets`
  const secret = { apiVersion: 'v1', kind: 'Secret', type: 'Opaque' }
  try {
    if (found === undefined) {
      const body = { ...secret, metadata: { name }, stringData: serializeTrust(trust) }
      await client.send({ method: 'POST', path, body })
    } else {
      const body = { ...found, ...secret, stringData: serializeTrust(trust) }
      await client.send({ method: 'PUT', path: `${path}/${name}`, body })
    }
    return true
  } catch (error) {
    if (hasStatus(error, 409)) return false
    // Deleted between reading and writing: the next round makes it.
    if (found !== undefined && hasStatus(error, 404)) return false
    throw error
  }
}

/**
 * Hands on what the Secret holds whenever that changes. What is gone or cannot be read is reported, and the last trust
 * stands. The result ends it.
 */
export function followTrust(
  { client, namespace, name }: SecretOptions,
  { log, random }: { readonly log: Logger; readonly random: () => number },
  onTrust: (trust: Trust) => void,
): () => Promise<void> {
  const reflector = createReflector<V1Secret>({
    client,
    path: `/api/v1/namespaces/${namespace}/secrets`,
    fieldSelector: `metadata.name=${name}`,
    strip: (secret) => secret,
    onChange(_, secret) {
      try {
        const trust = parseTrust(secret?.data)
        if (trust !== undefined) onTrust(trust)
        else log.error({ secret: name }, 'the Secret of the authority is gone or empty; its last content stands')
      } catch (error) {
        const { code, message } = error as AuthorityError
        log.error({ secret: name, code, error: message }, 'the Secret of the authority is damaged; the last one stands')
      }
    },
    log,
    random,
  })
  reflector.start()
  return () => reflector.stop()
}
