import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals'
import type { PodIdentity } from '../../../api/identity.ts'
import type { RefusalsRequest, ToldRefusal } from '../../../api/reports.ts'
import { createRefusalChoice, createRefusalEvents } from '../../../sidecar/control/refusal-events.ts'
import type { DenialRow } from '../../../sidecar/datapath/denials.ts'

function row(peer: string, port: number, count: number, more: Partial<DenialRow> = {}): DenialRow {
  const isAddress = /[.:]/.test(peer)
  const facts = { serviceAccount: 'default', labels: {}, namespaceLabels: {}, addresses: [], ports: [] }
  const pod: PodIdentity = { namespace: 'shop', name: peer, uid: `uid-${peer}`, ...facts }
  return {
    direction: 'ingress',
    refusal: 'policy',
    enforced: true,
    protocol: 'TCP',
    port,
    address: isAddress ? peer : '10.244.0.9',
    pod: isAddress ? undefined : pod,
    identified: !isAddress,
    policies: ['shop/nobody'],
    count,
    firstAt: 0,
    lastAt: 0,
    ...more,
  }
}

const short = (told: readonly ToldRefusal[]) => told.map(({ peer, port, count }) => `${peer}:${port} ${count}`)

describe('what the issuer is told of refusals', () => {
  it('is each peer once, with what it was refused most, and Pods before addresses', () => {
    const { next } = createRefusalChoice()
    const scans = Array.from({ length: 200 }, (_, port) => row('scanner', port + 1, 1))
    const told = next([row('203.0.113.7', 80, 900), ...scans, row('web', 80, 3), row('web', 81, 4)])
    expect(short(told)).toEqual(['shop/web:81 4', 'shop/scanner:1 1', '203.0.113.7:80 900'])
    expect(told[0]).toEqual({
      direction: 'ingress',
      reason: 'policy',
      protocol: 'TCP',
      port: 81,
      peer: 'shop/web',
      identified: true,
      policies: ['shop/nobody'],
      count: 4,
    })
  })

  it('counts from the last time that it was told, and leaves out what did not come again', () => {
    const { next } = createRefusalChoice()
    expect(short(next([row('web', 80, 3), row('db', 80, 1)]))).toEqual(['shop/web:80 3', 'shop/db:80 1'])
    expect(short(next([row('web', 80, 3), row('db', 80, 5)]))).toEqual(['shop/db:80 4'])
    expect(next([row('web', 80, 3), row('db', 80, 5)])).toEqual([])
    // A table that was begun anew.
    expect(short(next([row('web', 80, 2)]))).toEqual(['shop/web:80 2'])
  })

  it('lets whoever was not told of go first', () => {
    const { next } = createRefusalChoice()
    const busy = Array.from({ length: 8 }, (_, at) => row(`busy-${at}`, 80, 100))
    expect(next(busy)).toHaveLength(8)
    const more = [...busy.map((one) => ({ ...one, count: 900 })), row('web', 80, 1)]
    const told = short(next(more))
    expect([told.length, told[0]]).toEqual([8, 'shop/web:80 1'])
  })

  it('is nothing of what the mode let go on', () => {
    expect(createRefusalChoice().next([row('web', 80, 3, { enforced: false })])).toEqual([])
  })
})

describe('a telling of refusals', () => {
  beforeEach(() => void jest.useFakeTimers())
  afterEach(() => void jest.useRealTimers())
  const wait = (milliseconds: number) => jest.advanceTimersByTimeAsync(milliseconds)

  it('goes out once for many, and again only after a while', async () => {
    const sent: RefusalsRequest[] = []
    let count = 0
    const events = createRefusalEvents({
      denials: async () => [row('web', 80, count)],
      send: async (request) => sent.push(request),
      now: Date.now,
      log: { warn: () => undefined },
    })
    const refuse = (times: number) => {
      for (let i = 0; i < times; i++) {
        count++
        events.noted()
      }
    }
    refuse(5)
    await wait(4_999)
    expect(sent).toEqual([])
    await wait(1)
    refuse(3)
    await wait(59_999)
    expect(sent.map(({ refusals }) => short(refusals))).toEqual([['shop/web:80 5']])
    await wait(1)
    expect(sent.map(({ refusals }) => short(refusals))).toEqual([['shop/web:80 5'], ['shop/web:80 3']])
  })

  it('says in the log where it does not get through, and tells of the next', async () => {
    const warnings: unknown[] = []
    let sends = 0
    let count = 1
    const events = createRefusalEvents({
      denials: async () => [row('web', 80, count)],
      async send() {
        if (sends++ === 0) throw new Error('the issuer is away')
      },
      now: Date.now,
      log: { warn: (fields: unknown) => warnings.push(fields) },
    })
    events.noted()
    await wait(5_000)
    count++
    events.noted()
    await wait(60_000)
    expect([sends, warnings]).toEqual([2, [{ error: 'the issuer is away' }]])
  })
})
