import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { LabError } from './errors.ts'

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** A field as the downward API gives it (fieldRef); throws `lab-unsupported` for one that it does not know. */
export function downwardField(pod: V1Pod, path: string): string {
  const { metadata, spec, status } = pod
  const key = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path)
  if (key !== null) return metadata?.[key[1] as 'labels' | 'annotations']?.[key[2] ?? ''] ?? ''
  const list = (items: readonly { ip?: string }[] | undefined) => (items ?? []).map(({ ip }) => ip).join(',')
  const values: Readonly<Record<string, string | undefined>> = {
    'metadata.name': metadata?.name,
    'metadata.namespace': metadata?.namespace,
    'metadata.uid': metadata?.uid,
    'spec.nodeName': spec?.nodeName,
    'spec.serviceAccountName': spec?.serviceAccountName,
    'status.podIP': status?.podIP,
    'status.podIPs': list(status?.podIPs),
    'status.hostIP': status?.hostIP,
    'status.hostIPs': list(status?.hostIPs),
  }
  if (!Object.hasOwn(values, path)) throw new LabError('lab-unsupported', `fieldRef ${path} is not known to the lab`)
  return values[path] ?? ''
}

/** Replaces `$(NAME)` by the variable where there is one; `$$(NAME)` stays `$(NAME)`. */
export function expandVariables(text: string, environment: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)/g, (match, name: string | undefined) => {
    if (name === undefined) return '$'
    return Object.hasOwn(environment, name) ? (environment[name] ?? '') : match
  })
}

/** A container's environment: PATH, HOSTNAME, and what its `env` says, in order. */
export function containerEnvironment(pod: V1Pod, container: V1Container): Record<string, string> {
  const environment: Record<string, string> = { PATH, HOME: '/', HOSTNAME: pod.metadata?.name ?? '' }
  for (const { name, value, valueFrom } of container.env ?? []) {
    if (valueFrom === undefined || valueFrom === null) {
      environment[name] = expandVariables(value ?? '', environment)
    } else if (valueFrom.fieldRef) {
      environment[name] = downwardField(pod, valueFrom.fieldRef.fieldPath)
    } else if (valueFrom.resourceFieldRef) {
      const [kind = '', resource = ''] = valueFrom.resourceFieldRef.resource.split('.')
      const resources = container.resources?.[kind as 'limits' | 'requests']
      environment[name] = String(resources?.[resource] ?? '0')
    } else {
      throw new LabError('lab-unsupported', `container ${container.name}: env ${name}: the lab knows fieldRef only`)
    }
  }
  return environment
}
