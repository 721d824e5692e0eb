import type {
  V1ConfigMap,
  V1Deployment,
  V1EndpointSlice,
  V1MutatingWebhookConfiguration,
  V1Service,
  V1ValidatingAdmissionPolicy,
  V1ValidatingAdmissionPolicyBinding,
} from '@kubernetes/client-node'
import type { ApiClient } from '../../kubernetes/client.ts'
import { DEFAULT_INJECTION_SETTINGS, type InjectionSettings } from '../../webhook/admission/settings.ts'
import { WEBHOOK_CONFIGURATIONS } from '../../webhook/bootstrap/ca-bundle.ts'
import { parseInstallation } from '../../webhook/installation.ts'
import { readRotation } from '../certs/rotation.ts'
import { type InstallationFacts, known, type Seen, type SettingsFacts, seen, unseen } from './facts.ts'
import { look, lookAt, lookThrough } from './look.ts'
import { gatherCertificates, type OpenPort } from './serving.ts'

/** The name of our webhook within its configuration, whatever that is called. */
export const WEBHOOK = 'pods.synguard.io'
const DEFAULT_NAMESPACE = 'synguard'
const DEFAULT_SERVICE = 'synguard-webhook'
/** Of the webhook's Pods; its Deployment's too. */
const WEBHOOK_LABEL = 'app.kubernetes.io/name=synguard-webhook'
const ADMISSION = '/apis/admissionregistration.k8s.io/v1'
const SETTINGS_KEY = 'settings.yaml'
const SETTINGS_FOLDER = '/etc/synguard'

/** The Deployment, Service, settings and admission rules of Synguard, as far as they are there. */
export async function gatherInstallation(
  client: ApiClient,
  openPort: OpenPort,
  givenNamespace: string | undefined,
): Promise<InstallationFacts> {
  const configurations = await findConfigurations(client)
  const target = known(configurations)?.[0]?.webhooks?.find(({ name }) => name === WEBHOOK)?.clientConfig.service
  const namespace = givenNamespace ?? target?.namespace ?? DEFAULT_NAMESPACE
  const service = target?.name ?? DEFAULT_SERVICE
  const place = `namespaces/${namespace}`
  const [deployments, webhookService, endpoints, policies, policyBindings, rotation] = await Promise.all([
    lookThrough<V1Deployment>(client, `/apis/apps/v1/${place}/deployments`, { labelSelector: WEBHOOK_LABEL }),
    lookAt<V1Service>(client, `/api/v1/${place}/services/${service}`),
    lookThrough<V1EndpointSlice>(client, `/apis/discovery.k8s.io/v1/${place}/endpointslices`, {
      labelSelector: `kubernetes.io/service-name=${service}`,
    }),
    lookThrough<V1ValidatingAdmissionPolicy>(client, `${ADMISSION}/validatingadmissionpolicies`),
    lookThrough<V1ValidatingAdmissionPolicyBinding>(client, `${ADMISSION}/validatingadmissionpolicybindings`),
    look(() => readRotation({ client, namespace })),
  ])
  const deployment = deployments.seen ? seen(deployments.value[0]) : deployments
  const settings = await gatherSettings(client, namespace, deployment, known(webhookService))
  const found = { configurations, deployment, webhookService, endpoints, settings, policies, policyBindings, rotation }
  const facts = { namespace, service, ...found }
  return { ...facts, certificates: await gatherCertificates(facts, openPort) }
}

async function findConfigurations(client: ApiClient): Promise<InstallationFacts['configurations']> {
  const all = await lookThrough<V1MutatingWebhookConfiguration>(client, WEBHOOK_CONFIGURATIONS)
  if (!all.seen) return all
  return seen(all.value.filter(({ webhooks }) => webhooks?.some(({ name }) => name === WEBHOOK)))
}

async function gatherSettings(
  client: ApiClient,
  namespace: string,
  deployment: Seen<V1Deployment | undefined>,
  service: V1Service | undefined,
): Promise<Seen<SettingsFacts>> {
  if (!deployment.seen) return deployment
  if (deployment.value === undefined) return unseen('there is no Deployment of the webhook')
  const name = settingsName(deployment.value)
  if (name === undefined) return seen({ kind: 'wrong', problem: 'the Deployment mounts no ConfigMap with settings' })
  const configMap = await lookAt<V1ConfigMap>(client, `/api/v1/namespaces/${namespace}/configmaps/${name}`)
  if (!configMap.seen) return configMap
  const text = configMap.value?.data?.[SETTINGS_KEY]
  if (text === undefined) {
    return seen({ kind: 'wrong', problem: `ConfigMap ${namespace}/${name} is missing or has no ${SETTINGS_KEY}` })
  }
  return seen(readSettings(text, namespace, service))
}

function settingsName({ spec }: V1Deployment): string | undefined {
  const { containers = [], volumes = [] } = spec?.template.spec ?? {}
  const mount = containers
    .flatMap(({ volumeMounts = [] }) => volumeMounts)
    .find(({ mountPath }) => mountPath === SETTINGS_FOLDER)
  return volumes.find(({ name }) => name === mount?.name)?.configMap?.name
}

/** As the webhook reads them, with the address that sidecars then go by. */
export function readSettings(text: string, namespace: string, service: V1Service | undefined): SettingsFacts {
  try {
    const installation = parseInstallation(text, { SYNGUARD_NAMESPACE: namespace })
    const label = installation.webhook.namespaceLabel
    const url = installation.issuerUrl ?? serviceUrl(service)
    return { kind: 'read', label, ...(url !== undefined && { injection: installation.injection(url) }) }
  } catch (error) {
    return { kind: 'wrong', problem: (error as Error).message }
  }
}

function serviceUrl(service: V1Service | undefined): string | undefined {
  const { clusterIP, ports = [] } = service?.spec ?? {}
  const port = (ports.find(({ name }) => name === 'https') ?? ports[0])?.port
  if (clusterIP === undefined || clusterIP === 'None' || port === undefined) return undefined
  return `https://${clusterIP.includes(':') ? `[${clusterIP}]` : clusterIP}:${port}`
}

/** The label that selects namespaces; the usual one where the settings do not say. */
export function labelOf({ settings }: Pick<InstallationFacts, 'settings'>) {
  const read = known(settings)
  return read?.kind === 'read' ? read.label : DEFAULT_INJECTION_SETTINGS.namespaceLabel
}

/** The settings of injection, where they could be seen. */
export function injectionOf({ settings }: Pick<InstallationFacts, 'settings'>): InjectionSettings | undefined {
  const read = known(settings)
  return read?.kind === 'read' ? read.injection : undefined
}

/** Whether there is an installation: `unknown` where nothing that was seen says so and not all was seen. */
export function stateOf({ configurations, deployment }: InstallationFacts): 'installed' | 'absent' | 'unknown' {
  if ((known(configurations)?.length ?? 0) > 0 || known(deployment) !== undefined) return 'installed'
  return configurations.seen && deployment.seen ? 'absent' : 'unknown'
}

/** The API server's version, as it says itself. */
export function gatherVersion(client: ApiClient): Promise<Seen<string>> {
  return look(async () => {
    const { gitVersion = '' } = await client.send<{ gitVersion?: string }>({ method: 'GET', path: '/version' })
    return gitVersion
  })
}
