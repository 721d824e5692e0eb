import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from '@jest/globals'
import { HEADER_PROOF, HEADER_WIT } from '../../../api/identity.ts'
import { trustBundle } from '../../../certs/authority.ts'
import { verifyRequestProof } from '../../../certs/possession.ts'
import { joinWitParts } from '../../../certs/wit-parts.ts'
import {
  authenticateRequest,
  createIdentityClient,
  type IdentityClient,
  type IdentityClientOptions,
  type OwnIdentity,
} from '../../../sidecar/control/identity-client.ts'
import {
  createKeptLog,
  createSigningKey,
  type FakeIssuer,
  ISSUER,
  issueIdentity,
  json,
  podIdentity,
  startFakeIssuer,
  TRUST_DOMAIN,
  until,
} from './fake-issuer.ts'

const key = createSigningKey()
let issuer: FakeIssuer
let client: IdentityClient | undefined
afterEach(async () => {
  client?.stop()
  await issuer.close()
})

interface Seen {
  readonly identities: { readonly identity: OwnIdentity; readonly reason: string }[]
  readonly lines: Record<string, unknown>[]
  readonly client: IdentityClient
}

async function start(options: Partial<IdentityClientOptions> = {}, handler = issueIdentity(key)): Promise<Seen> {
  issuer = await startFakeIssuer()
  issuer.handle(handler)
  const { log, lines } = createKeptLog()
  const identities: Seen['identities'] = []
  client = createIdentityClient({
    http: issuer.http,
    tokenPath: join(issuer.credentials, 'token'),
    pod: { namespace: 'shop', name: 'api-0', uid: 'uid-api-0' },
    trustDomain: TRUST_DOMAIN,
    issuer: ISSUER,
    now: Date.now,
    random: () => 0.5,
    retry: { initialMs: 10, maxMs: 20 },
    log,
    onIdentity: (identity, reason) => void identities.push({ identity, reason }),
    ...options,
  })
  return { identities, lines, client }
}

describe('the identity client', () => {
  it('obtains a verified WIT for this Pod and its own key', async () => {
    const { client, identities } = await start()
    expect(client.current()).toBeUndefined()
    client.start()
    await until(() => identities.length === 1)
    const identity = client.current()
    expect(identity).toBe(identities[0]?.identity)
    expect(identities[0]?.reason).toBe('start')
    expect(identity?.verified.identity).toEqual(podIdentity)
    expect(identity?.bundle).toEqual(trustBundle([key]))
    expect(identity && joinWitParts(identity.parts)).toBe(identity?.wit)
    expect(identity?.expiresAtMs).toBe((identity?.verified.expiresAt ?? 0) * 1000)
  })

  it('renews with a fresh key when asked', async () => {
    const { client, identities } = await start()
    client.start()
    await until(() => identities.length === 1)
    client.renew('labels')
    await until(() => identities.length === 2)
    expect(identities.map(({ reason }) => reason)).toEqual(['start', 'labels'])
    expect(new Set(identities.map(({ identity }) => identity.verified.cnfThumbprint)).size).toBe(2)
  })

  it('asks once more where a renewal is wanted while a request is under way', async () => {
    const issue = issueIdentity(key)
    let release: (() => void) | undefined
    const { client, identities } = await start({}, (request, response, body) => {
      if (release !== undefined) return issue(request, response, body)
      release = () => void issue(request, response, body)
    })
    client.start()
    await until(() => release !== undefined)
    client.renew('labels')
    client.renew('other labels')
    release?.()
    await until(() => identities.length === 2)
    expect(identities.map(({ reason }) => reason)).toEqual(['start', 'other labels'])
  })

  it.each([
    [0, 10_800],
    [0.5, 12_000],
    [1, 13_200],
  ])('renews 24 s of life at half, moved by a tenth either way: random %d is %d ms', async (random, renewInMs) => {
    const nowMs = Math.floor(Date.now() / 1000) * 1000
    const options = { now: () => nowMs, random: () => random }
    const { client, lines } = await start(options, issueIdentity(key, { lifetimeSeconds: 24 }))
    client.start()
    await until(() => lines.length === 1)
    expect(lines[0]).toMatchObject({ reason: 'start', renewInMs })
  })

  it('renews by itself, and sooner with a clock that is ahead', async () => {
    const options = { now: () => Date.now() + 19_000, minRenewalMs: 10 }
    const { client, identities } = await start(options, issueIdentity(key, { lifetimeSeconds: 20 }))
    client.start()
    await until(() => identities.length === 2)
    expect(identities.map(({ reason }) => reason)).toEqual(['start', 'half-life'])
  })

  it('tries again with backoff, and says why it has none', async () => {
    let refusals = 2
    const issue = issueIdentity(key)
    const { client, identities, lines } = await start({}, (request, response, body) => {
      refusals -= 1
      if (refusals >= 0) return json(response, { error: { code: 'pod-unknown', message: 'no such Pod' } }, 403)
      return issue(request, response, body)
    })
    client.start()
    await until(() => identities.length === 1)
    expect(lines.slice(0, 2)).toEqual(
      [1, 2].map((attempt) => ({
        level: 'warn',
        reason: 'start',
        code: 'issuer-refused',
        error: 'the issuer answered 403 pod-unknown: no such Pod',
        attempt,
        retryInMs: attempt === 1 ? 8 : 15,
        msg: 'no identity obtained',
      })),
    )
  })

  it('waits as long as Retry-After asks', async () => {
    const { client, lines } = await start({}, (_, response) => json(response, {}, 503, { 'retry-after': '9' }))
    client.start()
    await until(() => lines.length === 1)
    expect(lines[0]?.retryInMs).toBe(9000)
    client.renew('does not cut the wait')
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(issuer.results).toEqual(['/v1/identity 503'])
  })

  it('reads the token anew each time', async () => {
    const { client, identities, lines } = await start()
    writeFileSync(join(issuer.credentials, 'token'), '')
    client.start()
    await until(() => lines.length > 0)
    expect(lines[0]).toMatchObject({ code: 'credentials-unreadable' })
    writeFileSync(join(issuer.credentials, 'token'), 'projected-token-1')
    await until(() => identities.length === 1)
  })

  it.each([
    ['another Pod', { ...podIdentity, uid: 'uid-other' }],
    ['another namespace', { ...podIdentity, namespace: 'other' }],
  ])('refuses a WIT for %s', async (_, identity) => {
    const { client, lines } = await start({}, issueIdentity(key, { identity }))
    client.start()
    await until(() => lines.length > 0)
    expect(lines[0]).toMatchObject({ code: 'identity-mismatch' })
    expect(client.current()).toBeUndefined()
  })

  it('refuses a WIT that the bundle in the answer does not sign', async () => {
    const issue = issueIdentity(key)
    const told: string[] = []
    const { client, lines } = await start(
      { onFailure: ({ code }) => told.push(code) },
      async (request, response, body) => {
        const end = response.end.bind(response)
        response.end = ((text: string) =>
          end(
            JSON.stringify({ ...JSON.parse(text), bundle: trustBundle([createSigningKey()]) }),
          )) as typeof response.end
        await issue(request, response, body)
      },
    )
    client.start()
    await until(() => lines.length > 0)
    expect(lines[0]).toMatchObject({ code: 'wit-unknown-key' })
    expect(told).toEqual(['wit-unknown-key'])
  })

  it('keeps the identity where a renewal fails', async () => {
    const { client, identities, lines } = await start()
    client.start()
    await until(() => identities.length === 1)
    issuer.handle((_, response) => json(response, {}, 500))
    client.renew('labels')
    await until(() => lines.some(({ level }) => level === 'warn'))
    expect(client.current()).toBe(identities[0]?.identity)
  })

  it('never logs token, proof or WIT', async () => {
    const { client, identities, lines } = await start()
    client.start()
    await until(() => identities.length === 1)
    issuer.handle((_, response, body) => json(response, body, 500))
    client.renew('labels')
    await until(() => lines.some(({ level }) => level === 'warn'))
    const all = JSON.stringify(lines)
    expect(all).not.toContain('projected-token')
    expect(all).not.toContain('eyJ')
  })
})

describe('an authenticated request', () => {
  it('carries the WIT and a proof of its key for that path', async () => {
    const { client, identities } = await start()
    client.start()
    await until(() => identities.length === 1)
    const identity = client.current()
    const headers = await authenticateRequest(identity, '/v1/peers?ip=10.0.0.1', Date.now())
    expect(headers[HEADER_WIT]).toBe(identity?.wit)
    const cnf = identity?.verified.cnf
    if (cnf === undefined) throw new Error('no identity')
    const expected = { htu: '/v1/peers?ip=10.0.0.1', now: Math.floor(Date.now() / 1000) }
    expect((await verifyRequestProof(headers[HEADER_PROOF] ?? '', cnf, expected)).jwk).toEqual(cnf)
  })

  it('needs an identity', async () => {
    await start()
    await expect(authenticateRequest(undefined, '/v1/stream', 0)).rejects.toMatchObject({ code: 'identity-missing' })
  })
})
