/** The label that a Deployment's ReplicaSet puts on its Pods, and the one of a StatefulSet's and of a Job's. */
const LABEL_TEMPLATE_HASH = 'pod-template-hash'
const LABEL_STATEFUL_POD = 'statefulset.kubernetes.io/pod-name'
const LABEL_JOB = 'batch.kubernetes.io/job-name'
const LABEL_REVISION = 'controller-revision-hash'
/** What the API server appends to generateName. */
const SUFFIX = /-[bcdfghjklmnpqrstvwxz2456789]{5}$/

/**
 * What a Pod belongs to, as `kind/name`, by its name and the labels that controllers put on their Pods: of another
 * namespace's Pods a sidecar sees no more. For people to group by, and nothing to decide by.
 */
export function workloadOf(name: string, labels: Readonly<Record<string, string>>): string {
  const hash = labels[LABEL_TEMPLATE_HASH]
  const generated = name.replace(SUFFIX, '')
  if (hash !== undefined && generated.endsWith(`-${hash}`)) return `deployment/${generated.slice(0, -hash.length - 1)}`
  if (labels[LABEL_STATEFUL_POD] === name) return `statefulset/${name.replace(/-\d+$/, '')}`
  if (labels[LABEL_JOB] !== undefined) return `job/${labels[LABEL_JOB]}`
  if (labels[LABEL_REVISION] !== undefined && generated !== name) return `daemonset/${generated}`
  return `pod/${name}`
}
