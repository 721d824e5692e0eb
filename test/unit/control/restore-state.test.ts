import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { MARK_OWN, MARK_RELEASED, MARK_REVOKED } from '../../../api/marks.ts'
import { IDENTITY_FILE } from '../../../sidecar/control/identity-table.ts'
import { restoreIdentityTable, settleLostRows } from '../../../sidecar/control/restore-state.ts'
import { openConntrack } from '../../../sidecar/netlink/conntrack.ts'
import { createFakeKernel } from '../../kernel/fake-kernel.ts'

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'synguard-state-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const ROW = {
  identity: {
    namespace: 'shop',
    name: 'web',
    uid: 'uid-web',
    serviceAccount: 'default',
    labels: {},
    namespaceLabels: {},
    addresses: ['10.0.0.1'],
    ports: [],
  },
  port: 0,
  kid: 'kid',
  issuedAt: 1_000,
  expiresAt: 4_600,
}

function restore() {
  const lines: object[] = []
  const table = restoreIdentityTable(directory, { error: (fields: object) => void lines.push(fields) })
  return { table, lines }
}

describe('an identity table of an earlier run', () => {
  it('is opened as it is where it is whole', () => {
    restore().table.obtain(ROW)
    const { table, lines } = restore()
    expect({ rows: [...table.rows()], lines }).toEqual({ rows: [{ ...ROW, index: 1 }], lines: [] })
  })

  it('that is damaged is set aside and told with what to do, and no row of it is trusted', () => {
    restore().table.obtain(ROW)
    const damaged = `${readFileSync(join(directory, IDENTITY_FILE), 'utf8')}\0\0\0\n`
    writeFileSync(join(directory, IDENTITY_FILE), damaged)
    const { table, lines } = restore()
    expect(table.size()).toBe(0)
    expect(lines).toEqual([
      { code: 'state-unreadable', error: expect.stringContaining('line 2'), fix: expect.any(String) },
    ])
    expect(readFileSync(join(directory, 'identities.damaged.jsonl'), 'utf8')).toBe(damaged)
    table.obtain(ROW)
    expect(restore()).toMatchObject({ lines: [] })
  })
})

describe('released connections of an earlier run', () => {
  const POD = new Uint8Array([10, 0, 0, 9])
  const PEER = new Uint8Array([10, 0, 0, 1])
  const flow = (sourcePort: number, mark: number) => {
    const ports = { sourcePort, destinationPort: 80 }
    const original = { family: 4, protocol: 6, source: PEER, destination: POD, ...ports } as const
    const reply = { ...original, source: POD, destination: PEER, sourcePort: 80, destinationPort: sourcePort }
    return { original, reply, mark: mark >>> 0, status: 0xe, tcpState: 3 }
  }
  const FLOWS = [
    flow(1, MARK_RELEASED | 1),
    flow(2, MARK_RELEASED | 2),
    flow(3, MARK_RELEASED),
    flow(4, MARK_RELEASED | MARK_OWN),
    flow(5, 2),
  ]

  function settle(ends: boolean) {
    const { table } = restore()
    table.obtain(ROW)
    const kernel = createFakeKernel()
    kernel.flows.push(...FLOWS)
    const destroyed: number[] = []
    const lost = settleLostRows({
      conntrack: openConntrack(kernel.openTransport()),
      sockDiag: {
        destroySocket({ remotePort }) {
          destroyed.push(remotePort)
          return true
        },
      },
      table,
      podAddresses: new Set(['10.0.0.9']),
      ends,
    })
    const changed = kernel.flows.filter((one, at) => one.mark !== FLOWS[at]?.mark)
    return { lost, destroyed, changed: changed.map(({ original, mark }) => [original.sourcePort, mark]) }
  }

  it('are ended where the row that they carry is gone, and only those', () => {
    expect(settle(true)).toEqual({ lost: 1, destroyed: [2], changed: [[2, (MARK_REVOKED | 2) >>> 0]] })
  })

  it('lose the index in a mode that ends nothing: it may be another Pod’s next', () => {
    expect(settle(false)).toEqual({ lost: 1, destroyed: [], changed: [[2, MARK_RELEASED >>> 0]] })
  })
})
