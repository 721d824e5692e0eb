import { AdmissionError } from './errors.ts'
import type { Injection } from './inject.ts'
import { inject } from './inject.ts'
import type { NamespaceFacts } from './namespace.ts'
import { parsePod } from './pod.ts'
import type { InjectionSettings } from './settings.ts'
import type { JsonObject } from './shape.ts'
import { isJsonObject } from './shape.ts'

/** Where each workload kind keeps its Pod template. */
const TEMPLATE_PATHS: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
}

/** The workload kinds whose Pods can be shown as injected. */
export const WORKLOAD_KINDS: readonly string[] = Object.keys(TEMPLATE_PATHS)

/** The document as its Pods would become, and what injection said of them. */
export interface InjectedManifest {
  /** Equal to the input where the Pods are skipped or refused without a change, or where the kind has none. */
  readonly document: unknown
  /** Absent where the document's kind has no Pods. */
  readonly injection?: Injection
}

function replaceAt(
  value: unknown,
  path: readonly string[],
  field: string,
  replace: (template: unknown) => unknown,
): unknown {
  const [key, ...rest] = path
  if (key === undefined) return replace(value)
  if (!isJsonObject(value)) throw new AdmissionError('malformed-object', `${field || 'the document'} must be an object`)
  return { ...value, [key]: replaceAt(value[key], rest, field === '' ? key : `${field}.${key}`, replace) }
}

/**
 * Returns what a manifest's Pods, or Pod template, would become in the given namespace. The cluster's objects are never
 * changed this way, as the webhook works on Pods. Throws AdmissionError `malformed-object` that names the field.
 */
export function injectManifest(
  document: unknown,
  namespace: NamespaceFacts,
  settings: InjectionSettings,
): InjectedManifest {
  const kind = isJsonObject(document) && typeof document.kind === 'string' ? document.kind : ''
  const path = Object.hasOwn(TEMPLATE_PATHS, kind) ? TEMPLATE_PATHS[kind] : undefined
  if (path === undefined) return { document }
  let injection: Injection | undefined
  const changed = replaceAt(document, path, '', (template) => {
    const pod = parsePod(template, path.join('.'))
    injection = inject(pod, namespace, settings)
    return injection.kind === 'refused' ? (template as JsonObject) : injection.pod
  })
  return injection === undefined ? { document } : { document: changed, injection }
}
