import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { parse, parseAllDocuments } from 'yaml'
import { parseInstallation } from '../../../webhook/installation.ts'
import { POLICY_READER } from '../../../webhook/namespaces/objects.ts'
import { CLUSTER_RULES, OWN_RULES, POLICY_READER_RULES, webhookConfiguration } from '../../apiserver/permissions.ts'
import { CHECKOUT } from './checkout.ts'

interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
  readonly [field: string]: unknown
}
interface Kustomization {
  readonly resources: readonly string[]
  readonly configMapGenerator: readonly { readonly files: readonly string[] }[]
}

const MANIFESTS = join(CHECKOUT, 'manifests')
const BASE = join(MANIFESTS, 'base')
const read = (...path: string[]) => readFileSync(join(...path), 'utf8')
const kustomization = (folder: string) => parse(read(folder, 'kustomization.yaml')) as Kustomization
const documents = (text: string) => parseAllDocuments(text).map((document) => document.toJS() as Manifest)
const objects = kustomization(BASE).resources.flatMap((file) => documents(read(BASE, file)))

function find(kind: string, name: string): Manifest {
  const found = objects.find((object) => object.kind === kind && object.metadata.name === name)
  if (found === undefined) throw new Error(`no ${kind} ${name}`)
  return found
}

/** Each permission alone, so that the order and the grouping of rules do not matter. */
function permissions(rules: unknown): string[] {
  const single = (rules as Readonly<Record<'apiGroups' | 'resources' | 'resourceNames' | 'verbs', string[]>>[]).flatMap(
    ({ apiGroups, resources, resourceNames = ['*'], verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) =>
          resourceNames.flatMap((name) => verbs.map((verb) => `${verb} ${group}/${resource} ${name}`)),
        ),
      ),
  )
  return single.sort()
}

describe('the manifests', () => {
  it('are listed by the kustomization, every file', () => {
    const { resources, configMapGenerator } = kustomization(BASE)
    const listed = [...resources, ...configMapGenerator.flatMap(({ files }) => files), 'kustomization.yaml']
    expect(listed.sort()).toEqual(readdirSync(BASE).sort())
  })

  it('are Kubernetes objects with names of their own', () => {
    for (const { apiVersion, kind, metadata } of objects) {
      expect([typeof apiVersion, typeof kind, metadata.name]).toEqual(['string', 'string', expect.stringMatching(/./)])
    }
    const keys = objects.map(({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`)
    expect(new Set(keys).size).toBe(keys.length)
  })

  it('allow the webhook what its tests at a real API server allow it, and nothing else', () => {
    expect(permissions(find('ClusterRole', 'synguard-webhook').rules)).toEqual(permissions(CLUSTER_RULES('synguard')))
    expect(permissions(find('Role', 'synguard-webhook').rules)).toEqual(
      permissions(OWN_RULES('synguard-authority', false)),
    )
  })

  it('say the reason of every permission in a comment', () => {
    const lines = read(BASE, 'permissions.yaml').split('\n')
    const rules = lines.flatMap((line, index) => (line.startsWith('  - apiGroups:') ? [index] : []))
    expect(rules.length).toBeGreaterThan(8)
    for (const index of rules) expect(lines[index - 1]).toMatch(/^ {2}# /)
  })

  it('let Pods of a labelled namespace read its policies and its mode, and nothing else', () => {
    expect(permissions(find('ClusterRole', POLICY_READER).rules)).toEqual(permissions(POLICY_READER_RULES))
  })

  it('contain no secret and no caBundle', () => {
    const secrets = objects.filter(({ kind }) => kind === 'Secret')
    expect(secrets.map(({ metadata, data, stringData }) => [metadata.name, data, stringData])).toEqual([
      ['synguard-authority', undefined, undefined],
    ])
    for (const file of readdirSync(MANIFESTS, { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.yaml')) continue
      expect(read(MANIFESTS, file)).not.toMatch(/^\s*caBundle:|BEGIN |eyJ[\w-]{5,}/m)
    }
  })

  it('ask the webhook for what its tests at a real API server ask it for', () => {
    const { webhooks } = find('MutatingWebhookConfiguration', 'synguard') as unknown as {
      webhooks: { namespaceSelector: { matchLabels: unknown }; clientConfig: unknown }[]
    }
    const [tested] = webhookConfiguration('synguard', 443).webhooks
    expect(webhooks).toEqual([
      {
        ...tested,
        namespaceSelector: {
          ...tested?.namespaceSelector,
          matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['synguard'] }],
        },
        clientConfig: {
          service: { namespace: 'synguard', name: 'synguard-webhook', port: 443, path: '/mutate' },
        },
      },
    ])
  })

  it.each(['base', 'overlays/test', 'overlays/e2e'])('have settings that the webhook takes: %s', (folder) => {
    const path = join(MANIFESTS, folder, 'settings.yaml')
    expect(existsSync(path)).toBe(true)
    const { injection, names } = parseInstallation(read(path), { SYNGUARD_NAMESPACE: 'synguard' })
    expect(injection('https://10.96.0.2:443').image).toMatch(/synguard\/sidecar:/)
    expect(find('Secret', names.secret).metadata.namespace).toBe('synguard')
    expect(find('Service', names.service).metadata.namespace).toBe('synguard')
    expect(find('MutatingWebhookConfiguration', names.webhookConfiguration)).toBeDefined()
  })
})
