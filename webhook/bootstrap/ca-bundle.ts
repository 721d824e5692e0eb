import type { V1MutatingWebhookConfiguration } from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'

export const WEBHOOK_CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
/** Owns caBundle, the objects in labelled namespaces, and nothing else. */
export const FIELD_MANAGER = 'synguard-webhook'

/** Whether every webhook of the configuration trusts exactly `bundle` (PEM). */
export function trusts(configuration: V1MutatingWebhookConfiguration, bundle: string): boolean {
  const encoded = Buffer.from(bundle).toString('base64')
  return (configuration.webhooks ?? []).every(({ clientConfig }) => clientConfig.caBundle === encoded)
}

/**
 * Sets caBundle in every webhook of the configuration by server-side apply: the rest of each stays its installer's, who
 * may apply it again without taking caBundle away. Rejects with ApiError.
 */
export async function publishCaBundle(
  client: ApiClient,
  configuration: V1MutatingWebhookConfiguration,
  bundle: string,
): Promise<void> {
  const name = configuration.metadata?.name ?? ''
  const encoded = Buffer.from(bundle).toString('base64')
  await client.send({
    method: 'PATCH',
    path: `${WEBHOOK_CONFIGURATIONS}/${name}`,
    query: { fieldManager: FIELD_MANAGER, force: 'true' },
    contentType: 'application/apply-patch+yaml',
    body: {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      // The uid keeps a configuration that was deleted meanwhile from coming back.
      metadata: { name, uid: configuration.metadata?.uid },
      webhooks: (configuration.webhooks ?? []).map((webhook) => ({
        name: webhook.name,
        clientConfig: { caBundle: encoded },
      })),
    },
  })
}
