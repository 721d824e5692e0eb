/** The API server's part of admission: asks the webhook about a Pod and applies its patch. */
import { randomUUID } from 'node:crypto'
import type { V1Pod } from '@kubernetes/client-node'
import { LabError } from './errors.ts'

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

interface Operation {
  readonly op: string
  readonly path: string
  readonly value?: Json
}

/** The AdmissionReview (admission.k8s.io/v1) for a Pod that is being created. */
export function createReview(pod: V1Pod): object {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: randomUUID(),
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      requestKind: { group: '', version: 'v1', kind: 'Pod' },
      requestResource: { group: '', version: 'v1', resource: 'pods' },
      name: pod.metadata?.name,
      namespace: pod.metadata?.namespace,
      operation: 'CREATE',
      userInfo: { username: 'system:serviceaccount:kube-system:replicaset-controller' },
      object: pod,
      oldObject: null,
      dryRun: false,
    },
  }
}

/** The Pod after the webhook's answer; throws `lab-admission` with its reason where it refused. */
export function applyAdmission(pod: V1Pod, review: unknown): V1Pod {
  const { response } = review as {
    response: { allowed: boolean; patch?: string; status?: { message?: string; reason?: string } }
  }
  if (response.allowed !== true) {
    const { namespace, name } = pod.metadata ?? {}
    throw new LabError(
      'lab-admission',
      `Pod ${namespace}/${name} is refused: ${response.status?.message ?? 'no reason'}`,
    )
  }
  if (response.patch === undefined) return pod
  const operations = JSON.parse(Buffer.from(response.patch, 'base64').toString('utf8')) as Operation[]
  return applyPatch(JSON.parse(JSON.stringify(pod)) as Json, operations) as unknown as V1Pod
}

/** Applies add, replace and remove of RFC 6902, which is all that admission patches use; throws `lab-admission`. */
export function applyPatch(document: Json, operations: readonly Operation[]): Json {
  let root = document
  for (const { op, path, value = null } of operations) {
    const keys = path
      .split('/')
      .slice(1)
      .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
    const last = keys.pop()
    if (last === undefined) {
      root = value
      continue
    }
    const parent = keys.reduce<Json | undefined>((node, key) => childOf(node, key), root)
    if (Array.isArray(parent)) changeList(parent, op, last, value)
    else if (typeof parent === 'object' && parent !== null) {
      if (op === 'remove') delete parent[last]
      else parent[last] = value
    } else throw new LabError('lab-admission', `the webhook's patch names ${path}, which does not exist`)
  }
  return root
}

function childOf(node: Json | undefined, key: string): Json | undefined {
  if (Array.isArray(node)) return node[Number(key)]
  return typeof node === 'object' && node !== null ? node[key] : undefined
}

function changeList(list: Json[], op: string, key: string, value: Json): void {
  const index = key === '-' ? list.length : Number(key)
  if (op === 'add') list.splice(index, 0, value)
  else if (op === 'remove') list.splice(index, 1)
  else list[index] = value
}
