import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import type { V1EndpointSlice, V1Namespace, V1Node, V1Pod, V1Service } from '@kubernetes/client-node'
import { parseAllDocuments } from 'yaml'
import { isGuarded } from '../../../webhook/admission/pod.ts'
import { serviceEndpoints } from '../../../webhook/directory/endpoints.ts'
import { podIdentity } from '../../../webhook/directory/pod-identity.ts'
import { STRIP } from '../../../webhook/kubernetes/objects.ts'
import { CHECKOUT } from '../repository/checkout.ts'

const FOLDER = join(CHECKOUT, 'test', 'fixtures', 'inject')

/** Every whole Pod of the golden files, injected and not, as if it ran. */
function goldenPods(): [string, V1Pod][] {
  return readdirSync(FOLDER).flatMap((file) =>
    parseAllDocuments(readFileSync(join(FOLDER, file), 'utf8')).flatMap((document, index) => {
      const found = findPod(document.toJS())
      if (found === undefined) return []
      const status = { phase: 'Running', podIPs: [{ ip: '10.244.0.7' }, { ip: 'fd00::7' }] }
      return [[`${file}/${index}`, { ...found, status }] as [string, V1Pod]]
    }),
  )
}

/** The object that is a Pod's, or that has one: what has a spec with containers. */
function findPod(value: unknown): V1Pod | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (Array.isArray((value as V1Pod).spec?.containers)) return value as V1Pod
  for (const inner of Object.values(value)) {
    const found = findPod(inner)
    if (found !== undefined) return found
  }
  return undefined
}

const namespace: V1Namespace = { metadata: { name: 'shop', labels: { team: 'a' } } }
const pods = goldenPods()

describe('what is kept of a Pod', () => {
  it('has golden Pods to look at, guarded and unguarded', () => {
    const guarded = pods.filter(([, { spec }]) => spec !== undefined && isGuarded(spec))
    expect(guarded.length).toBeGreaterThan(10)
    expect(pods.length - guarded.length).toBeGreaterThan(10)
  })

  it.each(pods)('is what identity, directory and degradation are made of: %s', (_, pod) => {
    const kept = STRIP.Pod(pod)
    const { spec } = pod
    if (spec === undefined || kept.spec === undefined) throw new Error('no spec')
    const guarded = isGuarded(spec)
    expect(isGuarded(kept.spec)).toBe(guarded)
    expect(podIdentity(kept, namespace, guarded)).toEqual(podIdentity(pod, namespace, guarded))
    const service: V1Service = {
      metadata: { name: 's', namespace: pod.metadata?.namespace ?? '' },
      spec: {
        selector: pod.metadata?.labels ?? {},
        publishNotReadyAddresses: true,
        ports: [{ port: 80, targetPort: 'http' }],
      },
    }
    expect(serviceEndpoints(service, [], [kept], 'IPv4')).toEqual(serviceEndpoints(service, [], [pod], 'IPv4'))
  })

  it('is little: no environment, volumes, probes, managed fields or foreign annotations', () => {
    const pod: V1Pod = {
      metadata: {
        name: 'web',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        annotations: { 'synguard.io/mode': 'audit', other: 'x' },
        managedFields: [{ manager: 'kubectl' }],
      },
      spec: {
        nodeName: 'node-1',
        volumes: [{ name: 'v' }],
        containers: [{ name: 'app', image: 'app:1', env: [{ name: 'A', value: 'B' }], livenessProbe: {} }],
      },
      status: {
        phase: 'Running',
        conditions: [
          { type: 'Initialized', status: 'True' },
          { type: 'Ready', status: 'True', message: 'long' },
        ],
        containerStatuses: [],
      },
    }
    expect(STRIP.Pod(pod)).toEqual({
      metadata: {
        name: 'web',
        namespace: 'shop',
        uid: 'u',
        resourceVersion: '7',
        annotations: { 'synguard.io/mode': 'audit' },
      },
      spec: { nodeName: 'node-1', containers: [{ name: 'app' }] },
      status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
    })
  })
})

describe('what is kept of the other kinds', () => {
  it('is of a Namespace all annotations but what kubectl remembers: meshes are known by theirs', () => {
    const annotations = { 'linkerd.io/inject': 'enabled', 'kubectl.kubernetes.io/last-applied-configuration': '{}' }
    const kept = STRIP.Namespace({ metadata: { name: 'shop', annotations }, status: { phase: 'Active' } })
    expect(kept).toEqual({
      metadata: { name: 'shop', annotations: { 'linkerd.io/inject': 'enabled' } },
      status: { phase: 'Active' },
    })
  })

  it('is of a Node its addresses, networks and readiness, and not its images', () => {
    const node: V1Node = {
      metadata: { name: 'n' },
      spec: { podCIDRs: ['10.244.0.0/24'] },
      status: {
        addresses: [{ type: 'InternalIP', address: '10.0.0.1' }],
        conditions: [
          { type: 'DiskPressure', status: 'False' },
          { type: 'Ready', status: 'True', lastHeartbeatTime: new Date() },
        ],
        images: [{ names: ['a'] }],
      },
    }
    expect(STRIP.Node(node)).toEqual({
      metadata: { name: 'n' },
      spec: { podCIDRs: ['10.244.0.0/24'] },
      status: {
        addresses: [{ type: 'InternalIP', address: '10.0.0.1' }],
        conditions: [{ type: 'Ready', status: 'True' }],
      },
    })
  })

  it('is of a Service and an EndpointSlice where they lead', () => {
    const service: V1Service = {
      metadata: { name: 's', namespace: 'shop' },
      spec: { clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'], ports: [{ port: 80 }], sessionAffinity: 'None' },
      status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
    }
    expect(STRIP.Service(service)).toEqual({
      metadata: { name: 's', namespace: 'shop' },
      spec: { clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'], ports: [{ port: 80 }] },
      status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
    })
    const slice: V1EndpointSlice = {
      metadata: { name: 's-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 's' } },
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: [{ addresses: ['10.244.0.7'], conditions: { ready: true }, nodeName: 'n', zone: 'z' }],
    }
    expect(STRIP.EndpointSlice(slice)).toEqual({
      ...slice,
      endpoints: [{ addresses: ['10.244.0.7'], conditions: { ready: true } }],
    })
  })
})
