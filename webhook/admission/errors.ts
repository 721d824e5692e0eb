import { SynguardError } from '../../api/errors.ts'

/** Codes of requests and settings that could not be read. */
export const ADMISSION_ERRORS = {
  'bad-setting': 'An injection setting is missing or has a value that cannot be used; the message names it.',
  'malformed-review': 'The request body is not an AdmissionReview of admission.k8s.io/v1.',
  'malformed-object': 'A field of the Pod or workload has the wrong type; the message names the field.',
  'unexpected-resource': 'The webhook was asked about something other than Pods; its configuration has a wrong rule.',
  'namespace-unknown': 'The namespace of the Pod is not known to the webhook yet; creating the Pod again helps.',
  'namespace-lookup-failed': 'The webhook could not read the namespace of the Pod.',
  'internal-error': 'The webhook met a fault of its own; its log has the details.',
  // Refusals of Pods.
  'bad-annotation': 'A Synguard annotation of the Pod or its namespace has a value that is not one of those allowed.',
  'dangerous-capability': 'A container adds a capability with which it could leave its sidecar behind.',
  'net-raw-added': 'A container adds NET_RAW, with which it could send packets past the sidecar.',
  'privileged-container': 'A container is privileged, so it could change the rules that guard the Pod.',
  'host-pid': 'The Pod shares the process namespace of its node.',
  'shared-process-namespace':
    'The Pod shares one process namespace, so containers could signal and inspect the sidecar.',
  'reserved-user': "A container runs as the sidecar's own user id.",
  'reserved-volume': "A container mounts one of the sidecar's own volumes.",
  'reserved-audience': 'A volume projects a service account token with the audience that only the sidecar uses.',
  'reserved-port': "A container declares the port of the sidecar's health server.",
  'mesh-sidecar': 'The Pod has, or asks for, the sidecar of a service mesh that redirects its traffic.',
  'sidecar-targeted': "An ephemeral container targets one of Synguard's containers.",
} as const

export type AdmissionErrorCode = keyof typeof ADMISSION_ERRORS

/** Why a Pod of a selected namespace, or all Pods of a namespace, get no sidecar. */
export const SKIP_REASONS = {
  'namespace-not-selected': 'The namespace does not carry the label that selects it for injection.',
  'mirror-pod': "The Pod is the API server's copy of a static Pod, which the webhook cannot change.",
  'host-network': "The Pod uses its node's network namespace, which a sidecar must not guard.",
  windows: 'The Pod runs on Windows, which has no netfilter.',
  'opted-out': 'The Pod opts out by its label, and its namespace allows that.',
} as const

export type SkipCode = keyof typeof SKIP_REASONS

/** A request, object or setting that could not be read. */
export class AdmissionError extends SynguardError {
  declare readonly code: AdmissionErrorCode

  constructor(code: AdmissionErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/** One reason that injection can give, for documentation and the CLI. */
export interface AdmissionReason {
  readonly code: string
  readonly outcome: 'refused' | 'skipped'
  readonly sentence: string
}

/** Every reason for which admission refuses or skips, in the order of the tables. */
export function listAdmissionReasons(): AdmissionReason[] {
  return [
    ...Object.entries(ADMISSION_ERRORS).map(([code, sentence]) => ({ code, outcome: 'refused' as const, sentence })),
    ...Object.entries(SKIP_REASONS).map(([code, sentence]) => ({ code, outcome: 'skipped' as const, sentence })),
  ]
}
