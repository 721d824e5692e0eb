import {
  ANNOTATION_ALLOW_OPT_OUT,
  ANNOTATION_ALLOW_PRIVILEGED,
  ANNOTATION_KEEP_NET_RAW,
  ANNOTATION_MODE,
  ANNOTATION_NODE,
  ANNOTATION_PEERS,
  ANNOTATION_REFUSAL,
} from '../../api/names.ts'
import type { NamespaceFacts } from './namespace.ts'
import type { SpecifiedPod } from './pod.ts'
import type { Refusal } from './reserved.ts'
import type { Choices } from './settings.ts'

export interface CombinedChoices {
  readonly choices: Choices
  readonly keepNetRaw: boolean
  readonly allowPrivileged: boolean
  readonly refusals: readonly Refusal[]
  readonly warnings: readonly string[]
}

const POD = 'metadata.annotations'
const NAMESPACE = 'namespace metadata.annotations'

/**
 * Combines the annotations of Pod and namespace, with `defaults` for what the namespace does not say.
 *
 * Of mode, peers and node access the stricter holds: whoever may create a Pod must not be able to lift what the
 * namespace's owner set. So a Pod can tighten only, and a Pod's annotation that would loosen is answered by a warning.
 * How a refusal looks is no matter of strictness: there the Pod's own word holds.
 */
export function combineChoices(pod: SpecifiedPod, namespace: NamespaceFacts, defaults: Choices): CombinedChoices {
  const refusals: Refusal[] = []
  const warnings: string[] = []
  const ofPod: Readonly<Record<string, string>> = pod.metadata?.annotations ?? {}

  function read<T extends string>(from: string, annotation: string, allowed: readonly T[]): T | undefined {
    const value = (from === POD ? ofPod : namespace.annotations)[annotation]
    const found = allowed.find((candidate) => candidate === value)
    if (value !== undefined && found === undefined) {
      const field = `${from}[${annotation}]`
      const choices = allowed.map((choice) => `"${choice}"`).join(' or ')
      refusals.push({ code: 'bad-annotation', field, message: `${field} is "${value}": use ${choices}` })
    }
    return found
  }

  function stricter<T extends string>(annotation: string, strictestFirst: readonly T[], fallback: T): T {
    const own = read(POD, annotation, strictestFirst)
    const others = read(NAMESPACE, annotation, strictestFirst) ?? fallback
    if (own === undefined || strictestFirst.indexOf(own) === strictestFirst.indexOf(others)) return others
    if (strictestFirst.indexOf(own) < strictestFirst.indexOf(others)) return own
    warnings.push(
      `${annotation}: "${own}" has no effect, as namespace ${namespace.name} is at the stricter "${others}"; annotate the namespace`,
    )
    return others
  }

  const isTrue = (from: string, annotation: string) => read(from, annotation, ['true', 'false']) === 'true'

  const choices: Choices = {
    mode: stricter(ANNOTATION_MODE, ['enforce', 'audit', 'off'], defaults.mode),
    peersWithoutIdentity: stricter(ANNOTATION_PEERS, ['deny', 'resolve'], defaults.peersWithoutIdentity),
    nodeAccess: stricter(ANNOTATION_NODE, ['probes', 'all'], defaults.nodeAccess),
    refusal:
      read(POD, ANNOTATION_REFUSAL, ['reset', 'drop']) ??
      read(NAMESPACE, ANNOTATION_REFUSAL, ['reset', 'drop']) ??
      defaults.refusal,
  }
  const keepNetRaw = isTrue(POD, ANNOTATION_KEEP_NET_RAW)
  const allowPrivileged = isTrue(POD, ANNOTATION_ALLOW_PRIVILEGED)
  // Read for its value's sake only: a misspelt "yes" should not pass for a no.
  isTrue(NAMESPACE, ANNOTATION_ALLOW_OPT_OUT)
  return { choices, keepNetRaw, allowPrivileged, refusals, warnings }
}
