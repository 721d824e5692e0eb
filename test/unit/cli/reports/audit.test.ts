import { describe, expect, it } from '@jest/globals'
import type { AuditReport, ReportedDenial, ReportedPeer, ReportedPod, RunningDenial } from '../../../../api/reports.ts'
import { mergeAudit } from '../../../../cli/reports/audit.ts'
import { formatAudit } from '../../../../cli/reports/format.ts'

const SINCE = '2026-01-01T00:00:00.000Z'
const LAST = '2026-01-01T02:00:00.000Z'
const NOW = Date.parse('2026-01-01T02:03:00.000Z')

function pod(workload: string, name = 'x', namespace = 'shop'): ReportedPod {
  return { namespace, name: `${workload.split('/')[1]}-${name}`, workload }
}

const peer = (of: ReportedPod): ReportedPeer => ({ kind: 'identified', address: '10.244.0.9', pod: of })
const WEB = pod('deployment/web')
const DB = pod('statefulset/db', '0')

function running(more: Partial<RunningDenial> = {}): RunningDenial {
  return {
    direction: 'ingress',
    protocol: 'TCP',
    port: 5432,
    peer: peer(WEB),
    policies: ['shop/only-api'],
    count: 1,
    ...more,
  }
}

function denial(more: Partial<ReportedDenial> = {}): ReportedDenial {
  return { ...running(), reason: 'policy', enforced: false, stands: true, first: SINCE, last: LAST, ...more }
}

function report(of: ReportedPod, more: Partial<AuditReport> = {}): AuditReport {
  return {
    pod: of,
    mode: 'audit',
    at: LAST,
    since: SINCE,
    denials: [],
    unlistedDenials: 0,
    running: [],
    unlistedRunning: 0,
    ...more,
  }
}

describe('an audit', () => {
  it('puts what both ends deny of one connection into one group, and adds up the Pods of a workload', () => {
    const egress = { direction: 'egress', peer: peer(DB), policies: ['shop/web-out'] } as const
    const { groups, result, read } = mergeAudit(
      'shop',
      [
        report(DB, { denials: [denial({ count: 3 }), denial({ count: 2, peer: peer(pod('deployment/web', 'y')) })] }),
        report(WEB, { denials: [denial({ ...egress, count: 3, last: SINCE })] }),
        report(pod('deployment/web', 'y'), { denials: [denial({ ...egress, count: 2 })], running: [running(egress)] }),
      ],
      [],
    )
    expect({ result, read }).toEqual({ result: 'refuses', read: 3 })
    expect(groups).toEqual([
      {
        from: 'shop/deployment/web',
        to: 'shop/statefulset/db',
        protocol: 'TCP',
        port: 5432,
        ends: [
          {
            direction: 'ingress',
            reason: 'policy',
            policies: ['shop/only-api'],
            connections: 5,
            running: 0,
            last: LAST,
          },
          { direction: 'egress', reason: 'policy', policies: ['shop/web-out'], connections: 5, running: 1, last: LAST },
        ],
      },
    ])
  })

  it('keeps apart ports, protocols, reasons and policies, the most frequent group first', () => {
    const denials = [
      denial(),
      denial({ port: 80, count: 9 }),
      denial({ protocol: 'UDP' }),
      denial({ reason: 'no-wit', policies: [], count: 4 }),
      denial({ policies: ['shop/other'] }),
      denial({ peer: { kind: 'address', address: '203.0.113.7' } }),
    ]
    const { groups } = mergeAudit('shop', [report(DB, { denials })], [])
    expect(groups.map(({ from, protocol, port, ends }) => [from, protocol, port, ends.length])).toEqual([
      ['shop/deployment/web', 'TCP', 80, 1],
      ['shop/deployment/web', 'TCP', 5432, 3],
      ['203.0.113.7', 'TCP', 5432, 1],
      ['shop/deployment/web', 'UDP', 5432, 1],
    ])
  })

  it('leaves out what is refused already, and what policies allow by now', () => {
    const denials = [denial({ enforced: true, count: 7 }), denial({ stands: false, count: 4 })]
    expect(mergeAudit('shop', [report(DB, { denials })], [])).toMatchObject({
      result: 'nothing',
      groups: [],
      mended: 4,
    })
  })

  it.each([
    ['all was read and nothing denied', [report(DB)], [], 'nothing'],
    ['a Pod could not be read', [report(DB)], [{ pod: 'shop/web-x', reason: 'refused' }], 'unknown'],
    ['a Pod is off', [report(DB, { mode: 'off' })], [], 'unknown'],
    ['a sidecar had more than it keeps', [report(DB, { unlistedDenials: 1 })], [], 'unknown'],
    ['a sidecar had more that runs', [report(DB, { unlistedRunning: 1 })], [], 'unknown'],
    ['no Pod could be read', [], [{ pod: 'shop/web-x', reason: 'refused' }], 'unknown'],
    ['a Pod enforces already', [report(DB, { mode: 'enforce' })], [], 'nothing'],
    ['only what runs is denied', [report(DB, { running: [running()] })], [], 'refuses'],
    [
      'something is denied, and a Pod could not be read',
      [report(DB, { denials: [denial()] })],
      [{ pod: 'shop/web-x', reason: 'refused' }],
      'refuses',
    ],
  ] as const)('says where %s: %#', (_what, reports, unread, expected) => {
    expect(mergeAudit('shop', reports, unread).result).toBe(expected)
  })

  it('is printed with what could not be seen', () => {
    const unread = [{ pod: 'shop/api-x', reason: 'you may not create pods/portforward' }]
    const reports = [
      report(DB, { denials: [denial({ count: 12 })], running: [running({ count: 2 })], unlistedDenials: 3 }),
      report(WEB, { mode: 'off', since: LAST }),
    ]
    expect(formatAudit(mergeAudit('shop', reports, unread), NOW)).toBe(
      [
        'shop/deployment/web -> shop/statefulset/db  TCP 5432',
        '    ingress of shop/statefulset/db: policy, shop/only-api: 12 connections, 2 running, last 3 min ago',
        '',
        'not read: shop/api-x: you may not create pods/portforward',
        'off, and tells only of what runs: shop/web-x',
        'not listed: 3 denials of further kinds than a sidecar keeps',
        '',
        'Enforcing shop would refuse 1 kind of connections: 2 Pods read, counted since 2026-01-01T02:00:00.000Z (3 min ago) or longer',
      ].join('\n'),
    )
    expect(formatAudit(mergeAudit('shop', [report(DB)], []), NOW)).toBe(
      'Enforcing shop would refuse nothing of what was seen: 1 Pod read, counted since 2026-01-01T00:00:00.000Z (2 h ago) or longer',
    )
  })
})
