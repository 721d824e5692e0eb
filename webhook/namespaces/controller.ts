import type { KubernetesObject, V1ClusterRole, V1ConfigMap, V1Namespace, V1RoleBinding } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { Mode } from '../../api/identity.ts'
import { CONFIGMAP_CA, CONFIGMAP_MODE, KEY_BREAK_GLASS } from '../../api/names.ts'
import type { BackoffLimits } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError, hasStatus } from '../../kubernetes/errors.ts'
import { createReflector, type Reflector } from '../../kubernetes/reflector.ts'
import { isSelected } from '../admission/inject.ts'
import { isGuarded } from '../admission/pod.ts'
import { FIELD_MANAGER } from '../bootstrap/ca-bundle.ts'
import type { Cluster } from '../cluster.ts'
import { isLive } from '../directory/pod-identity.ts'
import { createWorkQueue } from '../kubernetes/work-queue.ts'
import { type BreakGlass, breakGlassOf, namespaceMode } from '../mode.ts'
import type { WebhookSettings } from '../settings.ts'
import { breakGlassEvent, breakGlassOverEvent } from './break-glass.ts'
import {
  caConfigMap,
  isAsWanted,
  isManaged,
  modeConfigMap,
  type namespaceEvent,
  ownerOf,
  POLICY_READER,
  podSecurityEvent,
  policyReaderBinding,
  refusingPodSecurity,
} from './objects.ts'

/**
 * Keeps what sidecars need in each labelled namespace. Every replica does it all, by server-side apply under one name:
 * what the second one applies is there already.
 */
export interface NamespaceController {
  start(): void
  /** Trust in the issuer as PEM, from now on. */
  setCaBundle(bundle: string): void
  stop(): Promise<void>
}

export interface NamespaceControllerOptions {
  readonly cluster: Cluster
  readonly client: ApiClient
  readonly namespaceLabel: WebhookSettings['namespaceLabel']
  /** Where a namespace says nothing; `enforce` without it. */
  readonly defaultMode?: Mode
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random?: () => number
  readonly backoff?: BackoffLimits
}

const RBAC = '/apis/rbac.authorization.k8s.io/v1'
/** Events are forgotten after an hour; what still holds is then said again. */
const RESYNC_MS = 30 * 60_000
const PUT_OFF_MS = 250

export function createNamespaceController(options: NamespaceControllerOptions): NamespaceController {
  const { cluster, client, namespaceLabel, defaultMode, log, random = Math.random, backoff } = options
  const stopping = new AbortController()
  let caBundle: string | undefined
  let unsubscribe = () => {}
  let timers: NodeJS.Timeout[] = []
  /** What is missing could not be told from what is unknown: everything is looked at once that is over. */
  let putOff = true
  const queue = createWorkQueue({ work: reconcile, log, random, ...(backoff && { backoff }) })

  function mirror<Kind extends KubernetesObject>(
    path: string,
    name: string,
    onChange: (object: Kind | undefined) => void,
  ): Reflector<Kind> {
    return createReflector<Kind>({
      client,
      path,
      fieldSelector: `metadata.name=${name}`,
      strip: withoutManagedFields,
      onChange: (before, after) => onChange(after ?? before),
      log,
      random,
      ...(backoff && { backoff }),
    })
  }
  const addNamespaceOf = (object: KubernetesObject | undefined) => queue.add(object?.metadata?.namespace ?? '')
  const roles = mirror<V1ClusterRole>(`${RBAC}/clusterroles`, POLICY_READER, addAll)
  const bindings = mirror<V1RoleBinding>(`${RBAC}/rolebindings`, POLICY_READER, addNamespaceOf)
  const configMaps = mirror<V1ConfigMap>('/api/v1/configmaps', CONFIGMAP_CA, addNamespaceOf)
  const modes = mirror<V1ConfigMap>('/api/v1/configmaps', CONFIGMAP_MODE, addNamespaceOf)
  const reflectors = [roles, bindings, configMaps, modes]

  function isKnown(): boolean {
    return cluster.synced() && reflectors.every((reflector) => reflector.synced())
  }

  function addAll(): void {
    for (const { metadata } of cluster.list('Namespace')) if (metadata?.name !== undefined) queue.add(metadata.name)
  }

  /** A namespace whose label went keeps it all until its last guarded Pod went too: that lives by what is there. */
  function hasGuardedPods(name: string): boolean {
    for (const { metadata, spec, status } of cluster.list('Pod')) {
      if (metadata?.namespace !== name || spec === undefined || !isGuarded(spec)) continue
      if (isLive(status === undefined ? {} : { status })) return true
    }
    return false
  }

  async function reconcile(name: string): Promise<void> {
    const namespace = cluster.get('Namespace', name)
    if (!isKnown()) {
      putOff = true
      return
    }
    if (namespace === undefined || namespace.metadata?.deletionTimestamp !== undefined) return
    const binding = bindings.get(POLICY_READER, name)
    const configMap = configMaps.get(CONFIGMAP_CA, name)
    const modeMap = modes.get(CONFIGMAP_MODE, name)
    const isLabelled = isSelected(namespace.metadata?.labels ?? {}, namespaceLabel)
    if (!isLabelled && binding === undefined && configMap === undefined && modeMap === undefined) return
    if (!isLabelled && !hasGuardedPods(name)) {
      await remove(`${RBAC}/namespaces/${name}/rolebindings/${POLICY_READER}`, binding)
      await remove(`/api/v1/namespaces/${name}/configmaps/${CONFIGMAP_CA}`, configMap)
      await remove(`/api/v1/namespaces/${name}/configmaps/${CONFIGMAP_MODE}`, modeMap)
      return
    }
    if (caBundle === undefined) return
    const role = roles.get(POLICY_READER)
    if (role === undefined) throw new ApiError('api-answer', `The ClusterRole ${POLICY_READER} is missing: install it.`)
    const owner = ownerOf(role)
    const breakGlass = breakGlassOf(namespace.metadata?.annotations)
    const mode = namespaceMode(namespace.metadata?.annotations, defaultMode)
    await keepConfigMap(modeMap, modeConfigMap(name, owner, mode, breakGlass))
    await keepBinding(binding, policyReaderBinding(name, owner))
    await keepConfigMap(configMap, caConfigMap(name, owner, caBundle))
    // Events come last: nothing waits for them.
    if (breakGlass !== undefined) await tellOfBreakGlass(name, breakGlass)
    else if (modeMap?.data?.[KEY_BREAK_GLASS]) {
      await record(breakGlassOverEvent(namespace, modeMap.metadata?.resourceVersion ?? '', new Date()))
    }
    const level = refusingPodSecurity(namespace)
    if (isLabelled && level !== undefined) await record(podSecurityEvent(namespace, level, new Date()))
  }

  async function keepBinding(found: V1RoleBinding | undefined, wanted: V1RoleBinding): Promise<void> {
    if (isAsWanted(found, wanted)) return
    const path = `${RBAC}/namespaces/${wanted.metadata?.namespace}/rolebindings/${POLICY_READER}`
    // A roleRef cannot be changed: a binding to something else has to go first.
    if (found !== undefined && found.roleRef.name !== wanted.roleRef.name) {
      await unlessGone(client.send({ method: 'DELETE', path }))
    }
    await apply(path, wanted)
  }

  async function keepConfigMap(found: V1ConfigMap | undefined, wanted: V1ConfigMap): Promise<void> {
    if (isAsWanted(found, wanted)) return
    await apply(`/api/v1/namespaces/${wanted.metadata?.namespace}/configmaps/${wanted.metadata?.name}`, wanted)
  }

  async function tellOfBreakGlass(name: string, breakGlass: BreakGlass): Promise<void> {
    const path = `/api/v1/namespaces/${name}`
    const namespace = await client.send<V1Namespace>({ method: 'GET', path, signal: stopping.signal })
    await record(breakGlassEvent(namespace, breakGlass, new Date()))
  }

  async function apply(path: string, body: KubernetesObject): Promise<void> {
    const query = { fieldManager: FIELD_MANAGER, force: 'true' }
    const contentType = 'application/apply-patch+yaml'
    await client.send({ method: 'PATCH', path, query, contentType, body, signal: stopping.signal })
    log.info({ path }, 'applied')
  }

  /** What does not carry our label is somebody else's, whatever its name. */
  async function remove(path: string, found: KubernetesObject | undefined): Promise<void> {
    if (found === undefined || !isManaged(found)) return
    const body = { preconditions: { uid: found.metadata?.uid } }
    await unlessGone(client.send({ method: 'DELETE', path, body, signal: stopping.signal }))
    log.info({ path }, 'removed')
  }

  /** Writes an Event, where the API server does not have it already. */
  async function record(event: ReturnType<typeof namespaceEvent>): Promise<void> {
    const { namespace } = event.metadata
    try {
      await client.send({ method: 'POST', path: `/api/v1/namespaces/${namespace}/events`, body: event })
      const { reason, message } = event
      log[event.type === 'Warning' ? 'warn' : 'info']({ namespace, reason }, message)
    } catch (error) {
      // It was said within the last hour.
      if (!hasStatus(error, 409)) throw error
    }
  }

  return {
    start() {
      for (const reflector of reflectors) reflector.start()
      unsubscribe = cluster.subscribe(({ kind, before, after }) => {
        const { name = '', namespace = '' } = (after ?? before)?.metadata ?? {}
        if (kind === 'Namespace') queue.add(name)
        // The last guarded Pod of a namespace whose label went takes the rest with it.
        else if (kind === 'Pod' && bindings.get(POLICY_READER, namespace) !== undefined) {
          const labels = cluster.get('Namespace', namespace)?.metadata?.labels ?? {}
          if (!isSelected(labels, namespaceLabel)) queue.add(namespace)
        }
      })
      timers = [
        setInterval(addAll, RESYNC_MS * (0.8 + 0.4 * random())),
        setInterval(() => {
          if (!putOff || !isKnown()) return
          putOff = false
          addAll()
        }, PUT_OFF_MS),
      ]
    },
    setCaBundle(bundle) {
      if (bundle === caBundle) return
      caBundle = bundle
      addAll()
    },
    async stop() {
      stopping.abort()
      unsubscribe()
      for (const timer of timers) clearInterval(timer)
      await Promise.all([queue.stop(), ...reflectors.map((reflector) => reflector.stop())])
    },
  }
}

function withoutManagedFields<Kind extends KubernetesObject>(object: Kind): Kind {
  const { managedFields: _, ...metadata } = object.metadata ?? {}
  return { ...object, metadata }
}

async function unlessGone(answer: Promise<unknown>): Promise<void> {
  try {
    await answer
  } catch (error) {
    if (!hasStatus(error, 404)) throw error
  }
}
