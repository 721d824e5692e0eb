import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { AcknowledgeRequest, TrustBundle } from '../../../api/identity.ts'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { servingKeyId } from '../../../certs/rotation/record.ts'
import { createTrustKeeper, type TrustKeeper } from '../../../sidecar/control/trust-keeper.ts'
import { authority, createKeptLog, type FakeIssuer, json, other, startFakeIssuer, until } from './fake-issuer.ts'

const [one, two] = [createSigningKey(), createSigningKey()]
const bundleAt = (generation: number, keys = [one]): TrustBundle => ({ ...trustBundle(keys), generation })
const authorities = [servingKeyId(authority)]

let issuer: FakeIssuer
let keeper: TrustKeeper | undefined
beforeEach(async () => {
  issuer = await startFakeIssuer()
})
afterEach(async () => {
  keeper?.stop()
  await issuer.close()
})

function start() {
  const state = { kid: one.kid as string | undefined, status: 200 }
  const bundles: TrustBundle[] = []
  const cuts: string[][] = []
  const renewals: [reason: string, spreadMs: number][] = []
  const heard: AcknowledgeRequest[] = []
  issuer.handle((request, response, body) => {
    if (request.url === '/v1/acknowledge' && request.headers['x-proof-for'] === request.url) {
      heard.push(JSON.parse(body) as AcknowledgeRequest)
    }
    json(response, state.status === 200 ? {} : { error: { code: 'busy', message: 'later' } }, state.status)
  })
  keeper = createTrustKeeper({
    http: issuer.http,
    authenticate: async (path) => ({ 'x-proof-for': path }),
    caPath: join(issuer.credentials, 'ca.crt'),
    identityKid: () => state.kid,
    onBundle: (bundle) => void bundles.push(bundle),
    onCut: () => void cuts.push([one, two].map(({ kid }) => kid).filter((kid) => keeper?.isDistrusted(kid))),
    renew: (reason, spreadMs) => void renewals.push([reason, spreadMs]),
    log: createKeptLog().log,
    random: () => 0.5,
    retry: { initialMs: 10, maxMs: 40 },
    spreadMs: 20,
    caCheckMs: 10,
  })
  return { keeper, state, bundles, cuts, renewals, heard }
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 150))

describe('of two bundles', () => {
  it('the later one holds, whichever comes first', () => {
    const { keeper, bundles } = start()
    for (const generation of [5, 7, 6, 7]) keeper.take(bundleAt(generation))
    expect([bundles.map(({ generation }) => generation), keeper.bundle()?.generation]).toEqual([[5, 7, 7], 7])
  })

  it('that of an issuer which rotates nothing holds as well', () => {
    const { keeper } = start()
    keeper.take(bundleAt(5))
    keeper.take(trustBundle([two]))
    expect(keeper.bundle()).toEqual(trustBundle([two]))
    keeper.take(bundleAt(4))
    expect(keeper.bundle()?.generation).toBe(4)
  })
})

describe('what is held', () => {
  it('is acknowledged once each time that it changes: bundle and CAs', async () => {
    const { keeper, heard } = start()
    keeper.take(bundleAt(5))
    await until(() => heard.length > 0)
    await settle()
    keeper.take(bundleAt(5))
    keeper.take(bundleAt(6))
    await until(() => heard.length > 1)
    writeFileSync(join(issuer.credentials, 'ca.crt'), `${authority.certificatePem.trim()}\n${other.certificatePem}`)
    await until(() => heard.length > 2)
    await settle()
    expect(heard).toEqual([
      { generation: 5, authorities },
      { generation: 6, authorities },
      { generation: 6, authorities: [...authorities, servingKeyId(other)] },
    ])
  })

  it('is acknowledged again until the issuer takes it', async () => {
    const { keeper, state, heard } = start()
    state.status = 503
    keeper.take(bundleAt(5))
    await until(() => heard.length > 2)
    state.status = 200
    await settle()
    const taken = heard.length
    await settle()
    expect([heard.length, new Set(heard.map(({ generation }) => generation))]).toEqual([taken, new Set([5])])
  })

  it('goes with the request of a stream, and is then heard', async () => {
    const { keeper, heard } = start()
    await settle()
    expect(keeper.holding()).toEqual({ bundle: [] })
    keeper.take(bundleAt(5))
    const { acknowledge } = keeper.holding()
    expect(keeper.holding()).toEqual({ bundle: [one.kid], acknowledge: { generation: 5, authorities } })
    keeper.acknowledged(acknowledge)
    await settle()
    expect(heard).toEqual([])
  })

  it('is nothing that an issuer from before rotation asks for, or that can be said without an identity', async () => {
    const { keeper, state, heard } = start()
    keeper.take(trustBundle([one]))
    state.kid = undefined
    keeper.take(bundleAt(5))
    await settle()
    expect(heard).toEqual([])
    state.kid = one.kid
    keeper.identityChanged()
    await until(() => heard.length === 1)
  })
})

describe('a bundle that names a signer', () => {
  it('makes an identity by another key be renewed, and is acknowledged only then', async () => {
    const { keeper, state, renewals, heard } = start()
    keeper.take({ ...bundleAt(5, [one, two]), signer: two.kid })
    await until(() => heard.length === 1)
    // A replica that is behind signed it by the old key once more.
    keeper.identityChanged()
    expect([heard, renewals]).toEqual([
      [{ authorities }],
      [
        ['keys compromised', 10_000],
        ['keys compromised', 10_000],
      ],
    ])
    state.kid = two.kid
    keeper.identityChanged()
    await until(() => heard.length === 2)
    expect([heard[1], renewals.length]).toEqual([{ generation: 5, authorities }, 2])
  })

  it('is followed by the cut of all its other keys, and no other removal of a key is one', () => {
    const { keeper, cuts } = start()
    keeper.take(bundleAt(4, [one, two]))
    keeper.take(bundleAt(5, [two]))
    expect([cuts, keeper.isDistrusted(one.kid)]).toEqual([[], false])
    keeper.take({ ...bundleAt(6, [one, two]), signer: two.kid })
    keeper.take({ ...bundleAt(7, [one, two]), signer: two.kid })
    expect([cuts, keeper.isDistrusted(one.kid)]).toEqual([[], false])
    keeper.take(bundleAt(8, [two]))
    expect([cuts, keeper.isDistrusted(one.kid), keeper.isDistrusted(two.kid)]).toEqual([[[one.kid]], true, false])
  })
})
