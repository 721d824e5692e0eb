import type { V1ConfigMapList, V1MutatingWebhookConfigurationList } from '@kubernetes/client-node'
import { CONFIGMAP_CA } from '../../api/names.ts'
import type { Keyring } from '../../certs/rotation/keyring.ts'
import type { ServingAuthority } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { isSelected } from '../admission/inject.ts'
import { WEBHOOK_CONFIGURATIONS } from '../bootstrap/ca-bundle.ts'
import type { Cluster } from '../cluster.ts'
import type { WebhookSettings } from '../settings.ts'

export interface PublishedOptions {
  readonly client: ApiClient
  /** Of the MutatingWebhookConfiguration. */
  readonly name: string
  readonly cluster: Pick<Cluster, 'list'>
  readonly namespaceLabel: WebhookSettings['namespaceLabel']
  /** Seconds on a clock that only runs. */
  readonly elapsed: () => number
  readonly signal: AbortSignal
}

/** API servers hear of a caBundle by a watch of their own, and all of them must have it. */
const SETTLED_SECONDS = 5

/**
 * Whether caBundle and the ConfigMap of every labelled namespace have held each serving CA for a few seconds. Only asked
 * for where a step waits for it; rejects with ApiError.
 */
export function createPublished(options: PublishedOptions): (ring: Keyring<ServingAuthority>) => Promise<boolean> {
  const { client, name, cluster, namespaceLabel, elapsed, signal } = options
  let seen: { readonly generation: number; readonly at: number } | undefined

  const list = <List>(path: string, object: string) =>
    client.send<List>({ method: 'GET', path, query: { fieldSelector: `metadata.name=${object}` }, signal })

  async function holdsAll(ring: Keyring<ServingAuthority>): Promise<boolean> {
    const certificates = ring.keys.map(({ material }) => material.certificatePem.trim())
    const holds = (text: string | undefined) => certificates.every((pem) => text?.includes(pem))
    const { items } = await list<V1MutatingWebhookConfigurationList>(WEBHOOK_CONFIGURATIONS, name)
    const bundles = items.flatMap(({ webhooks = [] }) =>
      webhooks.map(({ clientConfig }) => clientConfig.caBundle ?? ''),
    )
    if (bundles.length === 0 || !bundles.every((text) => holds(Buffer.from(text, 'base64').toString()))) return false
    const configMaps = (await list<V1ConfigMapList>('/api/v1/configmaps', CONFIGMAP_CA)).items
    const held = new Set(
      configMaps.filter(({ data }) => holds(data?.['ca.crt'])).map(({ metadata }) => metadata?.namespace),
    )
    return [...cluster.list('Namespace')]
      .filter(({ metadata }) => metadata?.deletionTimestamp === undefined)
      .filter(({ metadata }) => isSelected(metadata?.labels ?? {}, namespaceLabel))
      .every(({ metadata }) => held.has(metadata?.name))
  }

  return async (ring) => {
    const isAwaited = ring.keys.some(({ state, confirmed }) => state !== 'active' && confirmed === undefined)
    if (!isAwaited) return true
    if (!(await holdsAll(ring))) {
      seen = undefined
      return false
    }
    if (seen?.generation !== ring.generation) seen = { generation: ring.generation, at: elapsed() }
    return elapsed() - seen.at >= SETTLED_SECONDS
  }
}
