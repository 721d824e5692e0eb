import type { V1Container, V1EnvVar, V1PodSpec, V1Probe, V1SecurityContext, V1Volume } from '@kubernetes/client-node'
import { ENVIRONMENT } from '../../api/environment.ts'
import {
  CONFIGMAP_API_CA,
  CONFIGMAP_CA,
  CONTAINER_INIT,
  CONTAINER_SIDECAR,
  FILE_API_CA,
  FILE_API_TOKEN,
  PATH_CREDENTIALS,
  PATH_STATE,
  SIDECAR_UID,
  TOKEN_AUDIENCE,
  VOLUME_CREDENTIALS,
  VOLUME_STATE,
} from '../../api/names.ts'
import { PATH_POLICIES, VOLUME_POLICIES } from './pod.ts'
import { sidecarResources } from './resources.ts'
import type { Choices, InjectionSettings } from './settings.ts'

/** What our containers depend on. */
export interface Rendering {
  /** The Pod's spec without ours. */
  readonly spec: V1PodSpec
  readonly choices: Choices
  readonly probePorts: readonly string[]
  readonly cpuLimitRequired: boolean
  readonly settings: InjectionSettings
}

// The API server fills in defaults before a webhook is called again: they are written out below, so that rendering
// anew gives the same Pod and so an empty patch.

function fromField(name: string, fieldPath: string): V1EnvVar {
  return { name, valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath } } }
}

function renderEnvironment({ choices, probePorts, settings }: Rendering): V1EnvVar[] {
  const { policySource } = settings
  return [
    fromField(ENVIRONMENT.podNamespace, 'metadata.namespace'),
    fromField(ENVIRONMENT.podName, 'metadata.name'),
    fromField(ENVIRONMENT.podUid, 'metadata.uid'),
    fromField(ENVIRONMENT.nodeName, 'spec.nodeName'),
    fromField(ENVIRONMENT.podIps, 'status.podIPs'),
    fromField(ENVIRONMENT.hostIps, 'status.hostIPs'),
    { name: ENVIRONMENT.issuerUrl, value: settings.issuerUrl },
    { name: ENVIRONMENT.issuerName, value: settings.issuerName },
    { name: ENVIRONMENT.trustDomain, value: settings.trustDomain },
    { name: ENVIRONMENT.policySource, value: policySource.kind === 'api' ? 'api' : `directory:${PATH_POLICIES}` },
    { name: ENVIRONMENT.clusterNetworks, value: settings.clusterNetworks.join(',') },
    { name: ENVIRONMENT.nodeAddresses, value: settings.nodeAddresses.join(',') },
    { name: ENVIRONMENT.mode, value: choices.mode },
    { name: ENVIRONMENT.peersWithoutIdentity, value: choices.peersWithoutIdentity },
    { name: ENVIRONMENT.nodeAccess, value: choices.nodeAccess },
    { name: ENVIRONMENT.refusal, value: choices.refusal },
    { name: ENVIRONMENT.probePorts, value: probePorts.join(',') },
    { name: ENVIRONMENT.healthPort, value: String(settings.healthPort) },
    { name: ENVIRONMENT.logLevel, value: settings.logLevel },
    // The API server leaves an empty value out; so do we.
  ].map((variable) => ('value' in variable && variable.value === '' ? { name: variable.name } : variable))
}

/** Every field that a Pod-level securityContext could set otherwise is set here, as the container's own wins. */
function renderSecurityContext(spec: V1PodSpec): V1SecurityContext {
  const appArmor = spec.securityContext?.appArmorProfile
  return {
    allowPrivilegeEscalation: false,
    // Only where the Pod sets one: on a node without AppArmor even RuntimeDefault is refused.
    ...(appArmor && appArmor.type !== 'Unconfined' && { appArmorProfile: { type: 'RuntimeDefault' } }),
    capabilities: { add: ['NET_ADMIN', 'NET_RAW'], drop: ['ALL'] },
    privileged: false,
    readOnlyRootFilesystem: true,
    runAsGroup: SIDECAR_UID,
    runAsNonRoot: true,
    runAsUser: SIDECAR_UID,
    seccompProfile: { type: 'RuntimeDefault' },
  }
}

function renderProbe(
  path: string,
  port: number,
  timing: { period: number; failures: number; timeout: number },
): V1Probe {
  return {
    failureThreshold: timing.failures,
    httpGet: { path, port, scheme: 'HTTP' },
    periodSeconds: timing.period,
    successThreshold: 1,
    timeoutSeconds: timing.timeout,
  }
}

function renderShared(rendering: Rendering, command: readonly string[]): Omit<V1Container, 'name'> {
  const { spec, settings, cpuLimitRequired } = rendering
  return {
    command: [...command],
    env: renderEnvironment(rendering),
    image: settings.image,
    imagePullPolicy: settings.imagePullPolicy,
    resources: sidecarResources(spec, settings.resources, cpuLimitRequired) ?? {},
    securityContext: renderSecurityContext(spec),
    terminationMessagePath: '/dev/termination-log',
    // A refusal of the init step then shows in `kubectl describe pod` without a look at the log.
    terminationMessagePolicy: 'FallbackToLogsOnError',
  }
}

/** Our two containers, in their order. */
export function renderContainers(rendering: Rendering): [V1Container, V1Container] {
  const { settings } = rendering
  const state = { mountPath: PATH_STATE, name: VOLUME_STATE }
  const init: V1Container = {
    name: CONTAINER_INIT,
    ...renderShared(rendering, settings.command.init),
    // The root is read-only, and iptables-legacy needs a place for its lock.
    volumeMounts: [state],
  }
  const sidecar: V1Container = {
    name: CONTAINER_SIDECAR,
    ...renderShared(rendering, settings.command.sidecar),
    ports: [{ containerPort: settings.healthPort, name: 'synguard-health', protocol: 'TCP' }],
    restartPolicy: 'Always',
    // The Pod's start waits for this one: queue bound, identity held, policies synced. Two minutes, then a restart. A
    // probe that comes too early waits for the answer, as the kubelet's next would come a second later.
    startupProbe: renderProbe('/readyz?wait=4', settings.healthPort, { period: 1, failures: 30, timeout: 5 }),
    readinessProbe: renderProbe('/readyz', settings.healthPort, { period: 10, failures: 3, timeout: 3 }),
    livenessProbe: renderProbe('/healthz', settings.healthPort, { period: 10, failures: 6, timeout: 5 }),
    volumeMounts: [
      { mountPath: PATH_CREDENTIALS, name: VOLUME_CREDENTIALS, readOnly: true },
      state,
      ...(settings.policySource.kind === 'directory'
        ? [{ mountPath: PATH_POLICIES, name: VOLUME_POLICIES, readOnly: true }]
        : []),
    ],
  }
  return [init, sidecar]
}

/**
 * The identity table of 10,000 peers: a line of about 1.1 KB each, up to two lines a peer in the file, and one more each
 * in the file that replaces it. What is really there counts as memory of the sidecar's container.
 */
const STATE_SIZE = '48Mi'

/** Our volumes. */
export function renderVolumes(settings: InjectionSettings): V1Volume[] {
  const expirationSeconds = settings.tokenExpirationSeconds
  const volumes: V1Volume[] = [
    {
      name: VOLUME_CREDENTIALS,
      projected: {
        // Readable for the sidecar's user whatever the Pod's fsGroup; only our container mounts it.
        defaultMode: 0o444,
        sources: [
          { serviceAccountToken: { expirationSeconds, path: FILE_API_TOKEN } },
          { serviceAccountToken: { audience: TOKEN_AUDIENCE, expirationSeconds, path: 'token' } },
          { configMap: { items: [{ key: 'ca.crt', path: 'ca.crt' }], name: CONFIGMAP_CA } },
          ...(settings.policySource.kind === 'api'
            ? [{ configMap: { items: [{ key: 'ca.crt', path: FILE_API_CA }], name: CONFIGMAP_API_CA } }]
            : []),
        ],
      },
    },
    { name: VOLUME_STATE, emptyDir: { medium: 'Memory', sizeLimit: STATE_SIZE } },
  ]
  if (settings.policySource.kind === 'directory') {
    volumes.push({ name: VOLUME_POLICIES, hostPath: { path: settings.policySource.hostPath, type: 'Directory' } })
  }
  return volumes
}
