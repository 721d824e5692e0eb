/** What the commands that ask a cluster have in common. */
import type { ApiClient } from '../kubernetes/client.ts'
import { WEBHOOK_CONFIGURATIONS } from '../webhook/bootstrap/ca-bundle.ts'
import { WEBHOOK } from './check/installation.ts'
import { lookThrough } from './check/look.ts'

/** The options by which a command finds cluster and installation. */
export const CLUSTER_OPTIONS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n' },
} as const

export const CLUSTER_OPTIONS_HELP = `  -n, --namespace NS   the installation's namespace (as the webhook configuration says, or synguard)
  --kubeconfig FILE    as kubectl's; also $KUBECONFIG
  --context NAME       one of its contexts`

interface WebhookConfiguration {
  readonly webhooks?: readonly {
    readonly name: string
    readonly clientConfig?: { readonly service?: { readonly namespace: string } }
  }[]
}

/**
 * Where Synguard is: `given`, or as its webhook configuration says, or where the manifests put it. Rejects with ApiError
 * where the API server cannot be asked at all.
 */
export async function findInstallation(client: ApiClient, given: string | undefined): Promise<string> {
  if (given !== undefined) return given
  const found = await lookThrough<WebhookConfiguration>(client, WEBHOOK_CONFIGURATIONS)
  const webhooks = (found.seen ? found.value : []).flatMap(({ webhooks = [] }) => webhooks)
  return webhooks.find(({ name }) => name === WEBHOOK)?.clientConfig?.service?.namespace ?? 'synguard'
}
