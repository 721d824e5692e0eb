/** What decides at the ends of a connection, as it stands at the API server: policies, modes, revocations. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { V1ConfigMap } from '@kubernetes/client-node'
import { CONFIGMAP_MODE } from '../../api/names.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import type { StoredObject } from '../../kubernetes/reflector.ts'
import { PolicyError } from '../../policy/errors.ts'
import { parseNetworkPolicies } from '../../policy/parse.ts'
import { type NetworkPolicy, policyName } from '../../policy/types.ts'
import { type NamespaceMode, readNamespaceMode } from '../../sidecar/control/namespace-mode.ts'
import { readStoredPolicy } from '../../sidecar/control/policies/stored-policy.ts'
import { parseEntries } from '../../webhook/issuer/void-entries.ts'
import type { VoidRecord } from '../../webhook/issuer/void-record.ts'
import { lookAt, lookThrough } from '../check/look.ts'
import { CliError } from '../errors.ts'

export interface Rules {
  readonly policies: readonly NetworkPolicy[]
  /** By namespace, as sidecars watch it; a namespace is missing where it could not be seen. */
  readonly modes: ReadonlyMap<string, NamespaceMode>
  /** By uid. */
  readonly voids: ReadonlyMap<string, VoidRecord>
  /** What could not be seen, and which policies cannot be read whole, each as a sentence. */
  readonly notes: readonly string[]
}

/**
 * Asks for what those namespaces enforce, with `tried` in place of the policies of the same names and beside the others.
 * Throws CliError `explain-unseen` where a namespace's policies cannot be seen.
 */
export async function gatherRules(
  client: ApiClient,
  namespaces: ReadonlySet<string>,
  system: string,
  tried: readonly NetworkPolicy[],
): Promise<Rules> {
  const notes: string[] = []
  const stored = await Promise.all([...namespaces].map((namespace) => gatherPolicies(client, namespace, notes)))
  const policies = new Map([...stored.flat(), ...tried].map((policy) => [policyName(policy), policy]))
  const modes = new Map<string, NamespaceMode>()
  for (const namespace of namespaces) {
    const path = `/api/v1/namespaces/${namespace}/configmaps/${CONFIGMAP_MODE}`
    const found = await lookAt<V1ConfigMap>(client, path)
    if (found.seen && found.value !== undefined) modes.set(namespace, readNamespaceMode(found.value.data))
    else if (!found.seen) notes.push(`ConfigMap ${namespace}/${CONFIGMAP_MODE} could not be seen: ${found.reason}`)
  }
  return { policies: [...policies.values()], modes, voids: await gatherVoids(client, system, notes), notes }
}

async function gatherPolicies(client: ApiClient, namespace: string, notes: string[]): Promise<NetworkPolicy[]> {
  const path = `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`
  const found = await lookThrough<StoredObject>(client, path)
  if (!found.seen)
    throw new CliError('explain-unseen', `The policies of ${namespace} could not be seen: ${found.reason}`)
  return found.value.map((object) => {
    const { policy, problems } = readStoredPolicy(object, namespace)
    for (const { message } of problems) notes.push(`${message}; it isolates, and what is not understood allows nothing`)
    return policy
  })
}

async function gatherVoids(client: ApiClient, system: string, notes: string[]): Promise<Rules['voids']> {
  const found = await lookAt<V1ConfigMap>(client, `/api/v1/namespaces/${system}/configmaps/synguard-voids`)
  if (!found.seen) notes.push(`whether a Pod is revoked could not be seen: ${found.reason}`)
  const data = found.seen ? (found.value?.data ?? {}) : {}
  return parseEntries(data, { now: Math.floor(Date.now() / 1_000), findPod: () => undefined }).records
}

/**
 * The policies in a file, or in a folder's `.yaml`, `.yml` and `.json` files; objects of other kinds are left out.
 * Throws PolicyError, or CliError `cli-usage` where nothing can be read.
 */
export function readPolicies(path: string): NetworkPolicy[] {
  const policies = new Map<string, NetworkPolicy>()
  for (const file of listFiles(path)) {
    for (const policy of parseNetworkPolicies(readFileSync(file, 'utf8'), file, { otherKinds: 'ignore' })) {
      const name = policyName(policy)
      if (policies.has(name)) {
        throw new PolicyError('policy-duplicate', file, 'metadata.name', `${name} is in another file too; rename one`)
      }
      policies.set(name, policy)
    }
  }
  if (policies.size === 0) throw new CliError('cli-usage', `${path} holds no NetworkPolicy`)
  return [...policies.values()]
}

function listFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path]
    const names = readdirSync(path).filter((name) => /\.(ya?ml|json)$/.test(name))
    return names.sort().map((name) => join(path, name))
  } catch (cause) {
    const { code = 'unreadable' } = cause as NodeJS.ErrnoException
    throw new CliError('cli-usage', `--policies ${path} cannot be read (${code})`, { cause })
  }
}
