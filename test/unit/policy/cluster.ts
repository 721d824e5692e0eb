/** The Pods that the tests of policies speak of: namespaces x and y with Pods a and b, and an address outside. */

import type { Labels, PodIdentity } from '../../../api/identity.ts'
import type { Endpoint } from '../../../policy/connection.ts'

export const NAMESPACE_LABELS: Readonly<Record<string, Labels>> = { x: { ns: 'x', env: 'prod' }, y: { ns: 'y' } }

function pod(namespace: string, name: string, addresses: string[], rest: Pick<PodIdentity, 'labels' | 'ports'>) {
  const namespaceLabels = NAMESPACE_LABELS[namespace] ?? {}
  return {
    namespace,
    name,
    uid: `${namespace}-${name}`,
    serviceAccount: 'default',
    namespaceLabels,
    addresses,
    ...rest,
  }
}

export const PODS: readonly PodIdentity[] = [
  pod('x', 'a', ['10.0.1.1', 'fd00:0:0:1::1'], {
    labels: { pod: 'a', app: 'web' },
    ports: [
      { name: 'http', port: 80, protocol: 'TCP' },
      { name: 'dns', port: 53, protocol: 'UDP' },
    ],
  }),
  pod('x', 'b', ['10.0.1.2', 'fd00:0:0:1::2'], {
    labels: { pod: 'b', app: 'db', tier: '' },
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  }),
  pod('y', 'a', ['10.0.2.1', 'fd00:0:0:2::1'], {
    labels: { pod: 'a', app: 'web' },
    ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
  }),
  pod('y', 'b', ['10.0.2.2', 'fd00:0:0:2::2'], {
    labels: { pod: 'b', legacy: 'true' },
    ports: [{ name: 'http', port: 80, protocol: 'UDP' }],
  }),
]

export const OUTSIDE = ['203.0.113.9', '2001:db8::9']

/** The Pod by `namespace/name`. */
export function findPod(name: string): PodIdentity {
  const found = PODS.find((candidate) => `${candidate.namespace}/${candidate.name}` === name)
  if (found === undefined) throw new Error(`no Pod ${name}`)
  return found
}

/** The cluster's ends by name, at their addresses of one family, some Pods or namespaces with other labels. */
export function endpoints(
  family: 4 | 6,
  podLabels: Readonly<Record<string, Labels>> = {},
  namespaceLabels: Readonly<Record<string, Labels>> = {},
): Map<string, Endpoint> {
  const index = family === 4 ? 0 : 1
  const ends = new Map<string, Endpoint>()
  for (const original of PODS) {
    const name = `${original.namespace}/${original.name}`
    const relabelled: PodIdentity = {
      ...original,
      labels: podLabels[name] ?? original.labels,
      namespaceLabels: namespaceLabels[original.namespace] ?? original.namespaceLabels,
    }
    ends.set(name, { pod: relabelled, address: original.addresses[index] ?? '' })
  }
  ends.set('out', { address: OUTSIDE[index] ?? '' })
  return ends
}
