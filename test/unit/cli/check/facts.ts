/** A cluster in which everything is as it should be, for tests that break one thing. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type {
  V1Deployment,
  V1MutatingWebhook,
  V1MutatingWebhookConfiguration,
  V1Namespace,
  V1Node,
  V1Pod,
  V1Service,
  V1ValidatingAdmissionPolicy,
  V1ValidatingAdmissionPolicyBinding,
} from '@kubernetes/client-node'
import { parseAllDocuments } from 'yaml'
import type { RotationStatus } from '../../../../api/rotation.ts'
import { createServingAuthority, issueServingCertificate, type ServingAuthority } from '../../../../certs/serving.ts'
import type { RotationView } from '../../../../cli/certs/rotation.ts'
import { judge } from '../../../../cli/check/checks.ts'
import {
  type ClusterFacts,
  type Facts,
  type InstallationFacts,
  type NamespaceFacts,
  type PodFacts,
  type ServedCertificate,
  seen,
} from '../../../../cli/check/facts.ts'
import type { Finding } from '../../../../cli/check/finding.ts'
import { inject } from '../../../../webhook/admission/inject.ts'
import type { SpecifiedPod } from '../../../../webhook/admission/pod.ts'
import { parseInjectionSettings } from '../../../../webhook/admission/settings.ts'
import { CHECKOUT } from '../../repository/checkout.ts'

export const AT = Date.parse('2026-11-24T12:00:00Z')
const SECONDS = AT / 1_000
const DAY = 86_400

export const LABELS = { 'synguard.io/inject': 'enabled' }
export const AUTHORITY = createServingAuthority({ now: SECONDS - 10 * DAY, lifetimeSeconds: 5 * 365 * DAY })
/** Of another installation. */
export const OTHER_AUTHORITY = createServingAuthority({ now: SECONDS - 10 * DAY, lifetimeSeconds: 5 * 365 * DAY })
export const SETTINGS = parseInjectionSettings({
  image: 'synguard/sidecar:0.1.0',
  issuerUrl: 'https://10.96.7.7:443',
  issuerName: 'synguard-webhook.synguard.svc',
})

function readManifests<Kind>(file: string, kind: string): Kind[] {
  const documents = parseAllDocuments(readFileSync(join(CHECKOUT, 'manifests', 'base', file), 'utf8'))
  return documents.map((document) => document.toJS() as Kind & { kind?: string }).filter((one) => one?.kind === kind)
}

function readManifest<Kind>(file: string, kind: string): Kind {
  const [found] = readManifests<Kind>(file, kind)
  if (found === undefined) throw new Error(`${file} has no ${kind}`)
  return found
}

/** What the manifests install, once the webhook has filled caBundle in. */
export function configuration(
  change: (webhook: V1MutatingWebhook) => V1MutatingWebhook = (webhook) => webhook,
): V1MutatingWebhookConfiguration {
  const manifest = readManifest<V1MutatingWebhookConfiguration>('admission.yaml', 'MutatingWebhookConfiguration')
  const caBundle = Buffer.from(AUTHORITY.certificatePem).toString('base64')
  return {
    ...manifest,
    webhooks: (manifest.webhooks ?? []).map((webhook) =>
      change({ ...webhook, clientConfig: { ...webhook.clientConfig, caBundle } }),
    ),
  }
}

export function deployment(readyReplicas = 2): V1Deployment {
  return { ...readManifest<V1Deployment>('deployment.yaml', 'Deployment'), status: { readyReplicas } }
}

export const policies = () =>
  readManifests<V1ValidatingAdmissionPolicy>('admission-policies.yaml', 'ValidatingAdmissionPolicy')
export const policyBindings = () =>
  readManifests<V1ValidatingAdmissionPolicyBinding>('admission-policies.yaml', 'ValidatingAdmissionPolicyBinding')

function service(): V1Service {
  const manifest = readManifest<V1Service>('service.yaml', 'Service')
  return { ...manifest, spec: { ...manifest.spec, clusterIP: '10.96.7.7' } }
}

export function served(
  options: { authority?: ServingAuthority; names?: string[]; ageDays?: number; lifetimeDays?: number } = {},
): ServedCertificate {
  const { authority = AUTHORITY, names = ['synguard-webhook.synguard.svc'], ageDays = 3, lifetimeDays = 30 } = options
  const { certificatePem } = issueServingCertificate(authority, {
    names,
    addresses: [],
    now: SECONDS - ageDays * DAY,
    lifetimeSeconds: lifetimeDays * DAY,
  })
  return { replica: 'webhook-1', names: ['synguard-webhook.synguard.svc'], certificatePem: seen(certificatePem) }
}

/** Made once: an RSA key takes its time. */
const SERVED = served()

export function node(name: string, info: { kubelet?: string; kernel?: string; os?: string } = {}): V1Node {
  const { kubelet = 'v1.37.2', kernel = '6.18.5', os = 'linux' } = info
  const nodeInfo = { kubeletVersion: kubelet, kernelVersion: kernel, architecture: 'amd64', operatingSystem: os }
  return { metadata: { name }, status: { nodeInfo } } as V1Node
}

/** A Pod as somebody made it, and with the sidecar that the webhook gives it. */
export function pod(name: string, fields: Partial<V1Pod['spec']> = {}, metadata: V1Pod['metadata'] = {}): SpecifiedPod {
  return {
    metadata: { name, namespace: 'shop', ...metadata },
    spec: { containers: [{ name: 'app', image: 'app:1' }], ...fields },
    status: { phase: 'Running', podIPs: [{ ip: '10.244.0.5' }] },
  }
}

export function guarded(name: string, settings = SETTINGS, metadata: V1Pod['metadata'] = {}): V1Pod {
  const namespace = { name: 'shop', labels: LABELS, annotations: {} }
  const injected = inject(pod(name, {}, metadata), namespace, settings)
  if (injected.kind !== 'injected') throw new Error(injected.reason)
  return injected.pod
}

export function namespace(
  pods: readonly V1Pod[] = [guarded('web')],
  change: Partial<NamespaceFacts> = {},
  metadata: V1Namespace['metadata'] = {},
): NamespaceFacts {
  const subjects = [{ kind: 'Group', name: 'system:serviceaccounts:shop' }]
  return {
    namespace: { metadata: { name: 'shop', labels: LABELS, ...metadata } },
    pods: seen(pods),
    ca: seen({ data: { 'ca.crt': AUTHORITY.certificatePem } }),
    mode: seen({ data: { mode: 'enforce', 'break-glass': '' } }),
    binding: seen({ roleRef: { apiGroup: '', kind: 'ClusterRole', name: 'synguard-policy-reader' }, subjects }),
    admission: seen({ kind: 'admitted', pod: guarded('synguard-check') }),
    ...change,
  }
}

/** What the webhook says of one kind of keys, and what an operator asks. */
export function rotation(change: Partial<RotationStatus> = {}, view: Partial<RotationView> = {}): RotationView {
  const status: RotationStatus = {
    at: SECONDS - 5,
    phase: 'idle',
    keys: [{ id: 'kid-a', state: 'active', since: SECONDS - 10 * DAY }],
    sidecars: { expected: 2, acknowledged: 2, missing: [] },
    waits: [],
    conditions: [],
    ...change,
  }
  return { status, problems: [], ...view }
}

export interface Changes {
  readonly cluster?: Partial<ClusterFacts>
  readonly installation?: Partial<InstallationFacts>
  readonly namespaces?: Facts['namespaces']
  readonly pods?: Partial<PodFacts>
}

export function facts(changes: Changes = {}): Facts {
  return {
    atMs: AT,
    cluster: {
      version: seen('v1.37.2'),
      admissionResources: seen(['mutatingwebhookconfigurations', 'validatingadmissionpolicies']),
      nodes: seen([node('node-1')]),
      kubeProxy: seen({ source: 'ConfigMap kube-system/kube-proxy', masqueradeAll: false, clusterCidrs: [] }),
      ...changes.cluster,
    },
    installation: {
      namespace: 'synguard',
      service: 'synguard-webhook',
      configurations: seen([configuration()]),
      deployment: seen(deployment()),
      webhookService: seen(service()),
      endpoints: seen([
        { addressType: 'IPv4', endpoints: [{ addresses: ['10.244.0.2'], conditions: { ready: true } }] },
      ]),
      settings: seen({ kind: 'read', label: SETTINGS.namespaceLabel, injection: SETTINGS }),
      certificates: seen([SERVED]),
      rotation: seen({ identity: rotation(), serving: rotation() }),
      policies: seen(policies()),
      policyBindings: seen(policyBindings()),
      ...changes.installation,
    },
    namespaces: changes.namespaces ?? seen([namespace()]),
    pods: {
      kernels: seen([{ kernel: '6.18.5 amd64', node: 'node-1', nodes: 1, run: { kind: 'succeeded', seconds: 2 } }]),
      guarded: seen({ kind: 'succeeded', seconds: 3.2 }),
      paths: seen([
        { path: 'node-1 to node-1', through: 'a Service', from: ['10.244.0.5'], seenAs: seen('10.244.0.5') },
      ]),
      ...changes.pods,
    },
  }
}

/** As of a cluster on which nobody has installed anything. */
export const ABSENT: Partial<InstallationFacts> = {
  configurations: seen([]),
  deployment: seen(undefined),
  webhookService: seen(undefined),
  endpoints: seen([]),
  settings: { seen: false, reason: 'there is no Deployment of the webhook' },
  certificates: { seen: false, reason: 'no replica is ready' },
  rotation: seen({
    identity: { problems: ['identity: is missing.'] },
    serving: { problems: ['serving: is missing.'] },
  }),
}

/** `status message` of each finding of that check. */
export function lines(check: string, changes: Changes = {}): string[] {
  return findings(changes)
    .filter((finding) => finding.check === check)
    .map(({ status, message }) => `${status} ${message}`)
}

export function findings(changes: Changes = {}): readonly Finding[] {
  return judge(facts(changes))
}
