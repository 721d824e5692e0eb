import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from '@jest/globals'
import { openIdentityTable } from '../../../sidecar/control/identity-table.ts'
import { renderVolumes } from '../../../webhook/admission/containers.ts'
import { parseQuantity } from '../../../webhook/admission/quantity.ts'
import { SETTINGS } from './subjects.ts'

/** Rows with which the sidecar begins to free those that expired. */
const ROWS = 10_000

/** A Pod that Helm installed in a namespace with the labels of a cloud. */
function usualIdentity(index: number) {
  const application = 'payment-gateway-worker'
  return {
    namespace: 'team-payments-production',
    name: `${application}-7d9f8c6b5d-${String(index).padStart(5, '0')}`,
    uid: `6f1d2c3b-4a59-4e68-8d77-${String(index).padStart(12, '0')}`,
    serviceAccount: application,
    labels: {
      'app.kubernetes.io/name': application,
      'app.kubernetes.io/instance': `${application}-production`,
      'app.kubernetes.io/version': '2026.11.3',
      'app.kubernetes.io/component': 'worker',
      'app.kubernetes.io/part-of': 'payments',
      'app.kubernetes.io/managed-by': 'Helm',
      'helm.sh/chart': `${application}-4.17.2`,
      'pod-template-hash': '7d9f8c6b5d',
    },
    namespaceLabels: {
      'kubernetes.io/metadata.name': 'team-payments-production',
      'synguard.io/inject': 'enabled',
      'pod-security.kubernetes.io/enforce': 'privileged',
      'team.example.com/name': 'payments',
      'team.example.com/cost-center': '4711',
      environment: 'production',
    },
    addresses: [`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`, `fd00:10:244::${index.toString(16)}`],
    ports: [
      { name: 'http', port: 8080, protocol: 'TCP' as const },
      { name: 'metrics', port: 9090, protocol: 'TCP' as const },
    ],
  }
}

describe("the memory volume of the sidecar's state", () => {
  const folder = mkdtempSync(join(tmpdir(), 'synguard-volume-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('holds the identity table of 10,000 peers while it is written anew beside its old file', () => {
    const errors: Error[] = []
    const table = openIdentityTable(folder, (error) => errors.push(error))
    for (const issuedAt of [1_764_000_000, 1_764_001_800]) {
      for (let index = 1; index <= ROWS; index++) {
        const times = { issuedAt, expiresAt: issuedAt + 3_600 }
        table.obtain({
          identity: usualIdentity(index),
          port: 0,
          kid: 'dJRo0TNp_xvlt8OLAs12iaVMZc3-pUkNsL3zDt077tI',
          ...times,
        })
      }
    }
    expect([table.size(), errors]).toEqual([ROWS, []])
    // Two lines a row: as much as the file gets. One line a row is what is written beside it.
    const { size } = statSync(join(folder, 'identities.jsonl'))
    const volume = renderVolumes(SETTINGS).find(({ name }) => name === 'synguard-state')
    const limit = Number((parseQuantity(volume?.emptyDir?.sizeLimit ?? '0') ?? 0n) / 10n ** 9n)
    expect(size * 1.5).toBeLessThan(limit)
    // Not far above: what is written counts as the container's memory.
    expect(size * 1.5).toBeGreaterThan(limit / 2)
  })
})
