import { readdirSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { parseAllDocuments } from 'yaml'
import {
  ANNOTATION_ALLOW_OPT_OUT,
  ANNOTATION_ALLOW_PRIVILEGED,
  ANNOTATION_KEEP_NET_RAW,
  ANNOTATION_STATUS,
  CONTAINER_INIT,
  CONTAINER_SIDECAR,
  LABEL_INJECT,
} from '../../../api/names.ts'
import { ADMISSION_ERRORS, SKIP_REASONS } from '../../../webhook/admission/errors.ts'
import { inject } from '../../../webhook/admission/inject.ts'
import { mutate } from '../../../webhook/admission/mutate.ts'
import type { NamespaceFacts } from '../../../webhook/admission/namespace.ts'
import type { PatchOperation } from '../../../webhook/admission/patch.ts'
import { isGuarded, parsePod, type SpecifiedPod } from '../../../webhook/admission/pod.ts'
import type { AdmissionResponse } from '../../../webhook/admission/review.ts'
import { applyPatch } from '../../unit/admission/json-patch.ts'
import { makePod, SETTINGS, SHOP } from '../../unit/admission/subjects.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, unfold } from '../values.ts'

const FOLDER = new URL('../../fixtures/inject/', import.meta.url)

function toJson(value: unknown): Json {
  return JSON.parse(JSON.stringify(value))
}

function review(object: unknown, request: object = {}): Json {
  const resource = { group: '', version: 'v1', resource: 'pods' }
  const fields = { uid: 'u-1', resource, operation: 'CREATE', namespace: 'shop', object, oldObject: null, ...request }
  return toJson({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request: fields })
}

const GOLDEN: readonly Json[] = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.input.yaml'))
  .map((name) => {
    const documents = parseAllDocuments(readFileSync(new URL(name, FOLDER), 'utf8'))
    const [namespace, pod] = documents.map((document): Json => toJson(document.toJS()))
    const { labels, annotations } = (isObject(namespace) ? namespace.metadata : {}) as { [key: string]: Json }
    return { namespace: { labels: labels ?? {}, annotations: annotations ?? {} }, review: review(pod) }
  })

const INJECTED = inject(parsePod(makePod()), SHOP, SETTINGS)
const GUARDED = INJECTED.kind === 'injected' ? INJECTED.pod : undefined
const WITH_DEBUGGER = {
  ...GUARDED,
  spec: { ...GUARDED?.spec, ephemeralContainers: [{ name: 'd', targetContainerName: 'web' }] },
}
const SELECTED = { labels: { [LABEL_INJECT]: 'enabled' }, annotations: {} }

const SEEDS: readonly Json[] = [
  ...GOLDEN,
  { namespace: SELECTED, review: review(makePod()) },
  { namespace: SELECTED, review: review(GUARDED) },
  {
    namespace: SELECTED,
    review: review(makePod({}, { securityContext: { capabilities: { add: ['CAP_NET_RAW', 'cap_sys_admin'] } } })),
  },
  {
    namespace: SELECTED,
    review: review(WITH_DEBUGGER, { operation: 'UPDATE', subResource: 'ephemeralcontainers', oldObject: GUARDED }),
  },
  { namespace: SELECTED, review: review(makePod({ containers: [{ $repeat: 500, of: { name: 'c$i' } }] })) },
  { namespace: SELECTED, review: review(makePod({}, { ports: [{ $repeat: 500, of: { containerPort: 15_900 } }] })) },
]

/** As runtimes read capabilities, apart from webhook/admission/powers.ts. */
function holds(capabilities: readonly unknown[] | undefined | null, name: string): boolean {
  return (capabilities ?? []).some((one) => [name, 'ALL'].includes(String(one).toUpperCase().replace(/^CAP_/, '')))
}

/** A Pod that was let in under a label has no power over its sidecar that no annotation grants. */
function holdHarmless(pod: SpecifiedPod): void {
  const annotations = pod.metadata?.annotations ?? {}
  const isPrivileged = annotations[ANNOTATION_ALLOW_PRIVILEGED] === 'true'
  const { spec } = pod
  hold(isPrivileged || (spec.hostPID !== true && spec.shareProcessNamespace !== true), 'process namespaces are its own')
  for (const { name, securityContext } of [...spec.containers, ...(spec.initContainers ?? [])]) {
    if (name === CONTAINER_INIT || name === CONTAINER_SIDECAR) continue
    const { add, drop } = securityContext?.capabilities ?? {}
    hold(isPrivileged || securityContext?.privileged !== true, 'no container is privileged')
    for (const power of ['NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'BPF']) {
      hold(isPrivileged || !holds(add, power), 'no container adds a dangerous capability')
    }
    const keepsRaw = annotations[ANNOTATION_KEEP_NET_RAW] === 'true' || isPrivileged
    hold(keepsRaw || (holds(drop, 'NET_RAW') && !holds(add, 'NET_RAW')), 'no container has NET_RAW')
    hold(securityContext?.runAsUser !== 15_900, 'no container has the user of the sidecar')
  }
}

/** A new Pod of a labelled namespace that was allowed is guarded, or skipped for a documented reason that is true. */
function holdCreated(pod: SpecifiedPod, namespace: NamespaceFacts): string {
  if (pod.metadata?.annotations?.['kubernetes.io/config.mirror'] !== undefined) return 'mirror-pod'
  const status = pod.metadata?.annotations?.[ANNOTATION_STATUS] ?? ''
  const skip = Object.keys(SKIP_REASONS).find((code) => status === `skipped: ${code}`)
  if (skip !== undefined) {
    const optedOut =
      pod.metadata?.labels?.[LABEL_INJECT] === 'disabled' && namespace.annotations[ANNOTATION_ALLOW_OPT_OUT] === 'true'
    const isTrue = pod.spec.hostNetwork === true || pod.spec.os?.name === 'windows' || optedOut
    hold(isTrue, 'a Pod is skipped for a reason that it has')
    hold(!isGuarded(pod.spec), 'a Pod that is skipped does not pass for a guarded one')
    return skip
  }
  hold(isGuarded(pod.spec), 'a Pod of a labelled namespace is never allowed without its sidecar')
  const ours = (pod.spec.initContainers ?? []).slice(0, 2).map(({ name }) => name)
  hold(isDeepStrictEqual(ours, [CONTAINER_INIT, CONTAINER_SIDECAR]), 'our containers start first')
  holdHarmless(pod)
  const again = inject(pod, namespace, SETTINGS)
  hold(
    again.kind === 'injected' && isDeepStrictEqual(toJson(again.pod), toJson(pod)),
    'to inject again changes nothing',
  )
  return 'guarded'
}

function holdWellFormed(response: AdmissionResponse, body: Json): void {
  const request = isObject(body) && isObject(body.request ?? null) ? (body.request as { [key: string]: Json }) : {}
  hold(response.uid === (typeof request.uid === 'string' ? request.uid : ''), 'an answer has the uid of its request')
  hold(response.allowed === (response.status === undefined), 'a refusal says why, an admission does not')
  hold((response.patch === undefined) === (response.patchType === undefined), 'a patch has a type')
  const bytes = JSON.stringify(body).length
  hold(JSON.stringify(response).length <= 131_072 + 12 * bytes, 'an answer is bounded by what came')
}

function patched(object: Json, response: AdmissionResponse): Json {
  const operations: PatchOperation[] =
    response.patch === undefined ? [] : JSON.parse(Buffer.from(response.patch, 'base64').toString())
  // As JSON again: a structured clone is of another realm in the tests.
  return toJson(applyPatch(object, operations))
}

export const admissionTarget = valueTarget({
  name: 'admission',
  about: 'AdmissionReviews: always a well-formed answer; no Pod of a labelled namespace gets in without its sidecar',
  sources: ['webhook/admission/'],
  batch: 16,
  seeds: SEEDS,
  words: [
    'synguard-init',
    'synguard-sidecar',
    'synguard-state',
    'synguard-credentials',
    'c$i',
    'NET_RAW',
    'CAP_NET_RAW',
    'CAP_SYS_ADMIN',
    'net_admin',
    'ALL',
    'true',
    'false',
    'disabled',
    'enabled',
    'ephemeralcontainers',
    'UPDATE',
    'CREATE',
    'Always',
    'Unconfined',
    '1e3',
    '100m',
    '64Mi',
    'windows',
  ],
  async check(input) {
    const { namespace, review: unread } = isObject(input) ? input : {}
    const body = unfold(unread ?? null)
    const { labels, annotations, cpuLimitRequired } = isObject(namespace ?? null)
      ? (namespace as { [key: string]: Json })
      : {}
    const facts: NamespaceFacts = {
      name: 'shop',
      labels: texts(labels),
      annotations: texts(annotations),
      cpuLimitRequired: cpuLimitRequired === true,
    }
    const failures: unknown[] = []
    const { response } = await mutate(
      body,
      (name) => (name === '' ? undefined : facts),
      SETTINGS,
      (error) => failures.push(error),
    )
    holdWellFormed(response, body)
    const { status } = response
    if (status !== undefined) {
      const code = status.message.split(':')[0] ?? ''
      if (code === 'internal-error') throw failures[0]
      hold(Object.hasOwn(ADMISSION_ERRORS, code), 'a refusal has a documented code')
      return code
    }
    const request = (body as { request: { [key: string]: Json } }).request
    const object = patched(request.object ?? null, response)
    if (request.operation === 'CREATE' && (request.subResource ?? '') === '') {
      return facts.labels[LABEL_INJECT] === 'enabled' ? holdCreated(parsePod(object), facts) : 'namespace-not-selected'
    }
    return response.patch === undefined ? 'allowed' : 'allowed-patched'
  },
})

/** Labels and annotations of a namespace come from the API server: texts, whatever the input has. */
function texts(value: Json | undefined): Record<string, string> {
  const entries = Object.entries(isObject(value ?? null) ? (value as { [key: string]: Json }) : {})
  return Object.fromEntries(entries.map(([key, text]) => [key, typeof text === 'string' ? text : JSON.stringify(text)]))
}
