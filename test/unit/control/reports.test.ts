import { describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import type { PodIdentity } from '../../../api/identity.ts'
import { type AuditReport, PATH_AUDIT } from '../../../api/reports.ts'
import { workloadOf } from '../../../api/workload.ts'
import { compile } from '../../../policy/compile.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { createReports, type ReportsOptions } from '../../../sidecar/control/reports.ts'
import { createGatePolicy } from '../../../sidecar/datapath/gate.ts'
import type { FromWorker, ToWorker } from '../../../sidecar/datapath/messages.ts'

const AT = Date.UTC(2026, 0, 2, 3, 4, 5)

function pod(name: string, labels: Readonly<Record<string, string>> = {}): PodIdentity {
  const facts = { namespaceLabels: {}, addresses: ['10.244.0.9'], ports: [] }
  return { namespace: 'shop', name, uid: `uid-${name}`, serviceAccount: 'default', labels, ...facts }
}

const ONLY_FRONTEND = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-frontend, namespace: shop }
spec: { podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { tier: frontend } } }] }] }
`

/** Reports over a packet path that has one denial, of `peer`; `questions` are what it was asked. */
function reportsOf(peer: PodIdentity, more: Partial<ReportsOptions> = {}) {
  const questions: ToWorker[] = []
  const policy = createGatePolicy(compile(parseNetworkPolicies(ONLY_FRONTEND, 'test.yaml'), pod('self')))
  const reports = createReports({
    pod: () => pod('self'),
    mode: () => 'audit',
    tell(question) {
      questions.push(question)
      const denial = {
        direction: 'ingress',
        refusal: 'policy',
        enforced: false,
        protocol: 'TCP',
        port: 80,
        address: '10.244.0.9',
        pod: peer,
        identified: true,
        policies: ['shop/removed'],
        count: 3,
        firstAt: AT,
        lastAt: AT + 1_000,
      } as const
      const answer: FromWorker = {
        type: 'denials',
        id: question.id,
        since: AT - 60_000,
        snapshot: { rows: [denial], unlisted: 2 },
      }
      queueMicrotask(() => reports.take(answer))
    },
    connections: {
      listDenied: async () => ({ running: [], unlisted: 0 }),
      list: async () => ({ flows: [], total: 0 }),
    },
    policy: () => policy,
    table: { rows: () => [] },
    currentIdentity: (identity) => identity,
    http: { send: async () => ({}) },
    authenticate: async () => ({}),
    log: pino({ level: 'silent' }),
    now: () => AT + 5_000,
    ...more,
  })
  return { questions, audit: async () => (await reports.documents[PATH_AUDIT]?.()) as AuditReport }
}

describe('the report of an audit', () => {
  it('says who and where, since when, and what the policies in force say of each denial', async () => {
    expect(await reportsOf(pod('web-6b9f8d4c5-x2x4z', { 'pod-template-hash': '6b9f8d4c5' })).audit()).toEqual({
      pod: { namespace: 'shop', name: 'self', workload: 'pod/self' },
      mode: 'audit',
      at: '2026-01-02T03:04:10.000Z',
      since: '2026-01-02T03:03:05.000Z',
      denials: [
        {
          direction: 'ingress',
          protocol: 'TCP',
          port: 80,
          peer: {
            kind: 'identified',
            address: '10.244.0.9',
            pod: { namespace: 'shop', name: 'web-6b9f8d4c5-x2x4z', workload: 'deployment/web' },
          },
          policies: ['shop/only-frontend'],
          reason: 'policy',
          enforced: false,
          stands: true,
          count: 3,
          first: '2026-01-02T03:04:05.000Z',
          last: '2026-01-02T03:04:06.000Z',
        },
      ],
      unlistedDenials: 2,
      running: [],
      unlistedRunning: 0,
    })
  })

  it('says of a denial that the policies allow by now that it stands no more, by the labels of now', async () => {
    const stands = async (...parts: Parameters<typeof reportsOf>) =>
      (await reportsOf(...parts).audit()).denials.map((denial) => denial.stands)
    const row = { index: 1, port: 0, kid: '', issuedAt: 1, expiresAt: 2 }
    const relabelled = (labels: Record<string, string>) => ({
      table: { rows: () => [{ ...row, identity: pod('web', labels) }] },
    })
    expect(await stands(pod('web', { tier: 'frontend' }))).toEqual([false])
    expect(await stands(pod('web'), relabelled({ tier: 'frontend' }))).toEqual([false])
    expect(await stands(pod('web', { tier: 'frontend' }), relabelled({}))).toEqual([true])
    const voided = { ...relabelled({ tier: 'frontend' }), currentIdentity: () => 'void' as const }
    expect(await stands(pod('web'), voided)).toEqual([true])
    expect(await stands(pod('web'), { policy: () => undefined })).toEqual([true])
  })

  it('is made once for all who ask at the same time', async () => {
    const { audit, questions } = reportsOf(pod('web'))
    const [first, second] = await Promise.all([audit(), audit()])
    expect(second).toBe(first)
    expect(questions).toEqual([{ type: 'denials', id: 1 }])
  })

  it('fails where it fails, and is made anew for whoever asks then', async () => {
    let fails = true
    const listDenied = async () => {
      if (fails) throw new Error('no room')
      return { running: [], unlisted: 0 }
    }
    const { audit } = reportsOf(pod('web'), {
      connections: { listDenied, list: async () => ({ flows: [], total: 0 }) },
    })
    await expect(audit()).rejects.toThrow('no room')
    fails = false
    expect((await audit()).denials).toHaveLength(1)
  })
})

describe('the workload of a Pod', () => {
  it.each([
    ['a Deployment', 'web-6b9f8d4c5-x2x4z', { 'pod-template-hash': '6b9f8d4c5' }, 'deployment/web'],
    ['a StatefulSet', 'db-0', { 'statefulset.kubernetes.io/pod-name': 'db-0' }, 'statefulset/db'],
    ['a Job', 'import-x2x4z', { 'batch.kubernetes.io/job-name': 'import' }, 'job/import'],
    ['a DaemonSet', 'agent-x2x4z', { 'controller-revision-hash': '5d4f8c7b9' }, 'daemonset/agent'],
    ['nothing', 'web-6b9f8d4c5-x2x4z', {}, 'pod/web-6b9f8d4c5-x2x4z'],
    ['a hash that is another Pod’s', 'web-1-x2x4z', { 'pod-template-hash': '6b9f8d4c5' }, 'pod/web-1-x2x4z'],
  ] as const)('is named by its name and labels: %s', (_what, name, labels, expected) => {
    expect(workloadOf(name, labels)).toBe(expected)
  })
})
