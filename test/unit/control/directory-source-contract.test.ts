import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDirectorySource } from '../../../sidecar/control/policies/directory.ts'
import { describePolicySource, manifestOf, type PolicyObject } from '../../contract/policy-source.ts'

const NAMESPACE = 'shop'

describePolicySource('a directory as source of policies', async () => {
  const root = mkdtempSync(join(tmpdir(), 'synguard-policies-'))
  const path = join(root, 'policies')
  const away = join(root, 'away')
  mkdirSync(path)
  /** As the lab writes them: a file a policy, by rename, so that a reading never sees half of it. */
  function write(name: string, text: string): void {
    writeFileSync(join(root, 'fresh'), text)
    renameSync(join(root, 'fresh'), join(path, `${name}.yaml`))
  }
  return {
    source: createDirectorySource({ path, namespace: NAMESPACE, debounceMs: 10, pollMs: 50 }),
    namespace: NAMESPACE,
    put: async (policy: PolicyObject) =>
      write(policy.name, JSON.stringify(manifestOf(policy, policy.namespace ?? NAMESPACE))),
    remove: async (name) => rmSync(join(path, `${name}.yaml`)),
    damage: async (name) => {
      const { spec, ...rest } = manifestOf({ name, app: 'web' }, NAMESPACE)
      write(name, JSON.stringify({ ...rest, spec: { ...spec, policyTypes: ['Sideways'] } }))
    },
    cut: async () => renameSync(path, away),
    mend: async () => renameSync(away, path),
    renew: async () => {
      const next = join(root, 'next')
      cpSync(path, next, { recursive: true })
      renameSync(path, away)
      renameSync(next, path)
    },
    close: async () => rmSync(root, { recursive: true }),
  }
})
