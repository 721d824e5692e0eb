import { createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from '@jest/globals'
import type { TrustBundle, VoidEntry } from '../../../api/identity.ts'
import { createSigningKey, exportPublicJwk, trustBundle } from '../../../certs/authority.ts'
import { issueWit } from '../../../certs/wit.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { openIdentityTable } from '../../../sidecar/control/identity-table.ts'
import { createVerifier } from '../../../sidecar/control/verifier.ts'
import { encodeWitSection } from '../../../sidecar/handshake/frame.ts'

const NOW = 1_900_000_000
const authority = createSigningKey()
const identity = {
  namespace: 'shop',
  name: 'web',
  uid: 'uid-web',
  serviceAccount: 'default',
  labels: { app: 'web' },
  namespaceLabels: { team: 'a' },
  addresses: ['10.0.0.1'],
  ports: [],
}

const directories: string[] = []
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true })
})

async function section(issuedAt = NOW, key = authority): Promise<Buffer> {
  const compact = await issueWit(key, {
    identity,
    cnf: exportPublicJwk(createSigningKey().privateKey),
    trustDomain: 'cluster.local',
    issuer: 'https://issuer',
    issuedAt,
    lifetimeSeconds: 3600,
    jti: 'abcdefghijklmnopqrstuv',
  })
  return encodeWitSection(decodeWitParts(compact))
}

const own = { generation: 7, privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }

function verifierWith(fetched?: () => TrustBundle) {
  const directory = mkdtempSync(join(tmpdir(), 'synguard-verifier-'))
  directories.push(directory)
  const state = {
    now: NOW * 1000,
    bundle: trustBundle([authority]) as TrustBundle | undefined,
    fetches: 0,
    own: own as typeof own | undefined,
  }
  const results: string[] = []
  const table = openIdentityTable(directory, (error) => {
    throw error
  })
  const verifier = createVerifier({
    table,
    trustDomain: 'cluster.local',
    issuer: 'https://issuer',
    skewSeconds: 120,
    bundle: () => state.bundle,
    own: () => state.own,
    fetchBundle: async () => {
      state.fetches++
      if (fetched) state.bundle = fetched()
    },
    now: () => state.now,
    onResult: (result) => results.push(result),
  })
  return { verifier, state, results, table }
}

describe('the verifier', () => {
  it('gives a good WIT its row of the identity table, the same one every time', async () => {
    const { verifier, results, table } = verifierWith()
    const first = await verifier.verify(await section())
    const second = await verifier.verify(await section())
    expect([first, second]).toMatchObject([
      { index: 1, identity },
      { index: 1, identity },
    ])
    expect({ results, rows: table.size() }).toEqual({ results: ['ok', 'ok'], rows: 1 })
  })

  it('gives the secret that the peer shares with the own identity, and none before there is one', async () => {
    const { verifier, state } = verifierWith()
    const peer = await verifier.verify(await section())
    if (typeof peer === 'string') throw new Error(peer)
    const publicKey = createPublicKey({ key: { ...peer.cnf }, format: 'jwk' })
    const secret = diffieHellman({ privateKey: own.privateKey, publicKey })
    expect(peer.shared).toEqual({ generation: 7, secret })
    state.own = undefined
    const before = await verifier.verify(await section())
    expect(before).toMatchObject({ index: 1 })
    expect(before).not.toHaveProperty('shared')
  })

  it.each([
    ['nothing at all', () => new Uint8Array(0)],
    [
      'parts that are no token',
      () => encodeWitSection({ header: Buffer.from('{'), payload: Buffer.of(1), signature: Buffer.of(2) }),
    ],
  ])('refuses %s without a rejection', async (_what, bytes) => {
    expect(await verifierWith().verifier.verify(bytes())).toBe('wit-invalid')
  })

  it('calls an expired WIT expired', async () => {
    expect(await verifierWith().verifier.verify(await section(NOW - 4_000))).toBe('wit-expired')
  })

  it('refuses every WIT while it has no bundle', async () => {
    const { verifier, state } = verifierWith()
    state.bundle = undefined
    expect(await verifier.verify(await section())).toBe('wit-invalid')
  })

  it('asks for the bundle at an unknown kid, once in 10 s however many such WITs come', async () => {
    const { verifier, state } = verifierWith()
    const unknown = [createSigningKey(), createSigningKey(), createSigningKey()]
    for (const key of unknown) expect(await verifier.verify(await section(NOW, key))).toBe('wit-invalid')
    expect(state.fetches).toBe(1)
    state.now += 10_001
    await verifier.verify(await section(NOW, createSigningKey()))
    expect(state.fetches).toBe(2)
  })

  it('accepts the WIT whose key the fetched bundle has', async () => {
    const rotated = createSigningKey()
    const { verifier } = verifierWith(() => trustBundle([authority, rotated]))
    expect(await verifier.verify(await section(NOW, rotated))).toMatchObject({ kid: rotated.kid })
  })
})

describe('void WITs', () => {
  const relabel: VoidEntry = { uid: 'uid-web', iatBefore: NOW, labels: { app: 'other' } }

  async function verdicts(entries: readonly VoidEntry[], issuedAt: number) {
    const { verifier } = verifierWith()
    for (const entry of entries) verifier.addVoid(entry)
    const peer = await verifier.verify(await section(issuedAt))
    if (typeof peer === 'string') return peer
    return { labels: peer.identity.labels, namespaceLabels: peer.identity.namespaceLabels }
  }
  const untouched = { labels: identity.labels, namespaceLabels: identity.namespaceLabels }

  it('are refused up to and including the second of the entry', async () => {
    const entry = { uid: 'uid-web', iatBefore: NOW }
    expect([await verdicts([entry], NOW), await verdicts([entry], NOW + 1)]).toEqual(['wit-void', untouched])
    expect(await verdicts([{ ...entry, uid: 'uid-other' }], NOW)).toEqual(untouched)
  })

  it('stand with the labels of the entry where it has some, and keep the others', async () => {
    expect(await verdicts([relabel], NOW)).toEqual({ ...untouched, labels: { app: 'other' } })
    const ofNamespace = { uid: 'uid-web', iatBefore: NOW, namespaceLabels: { team: 'b' } }
    expect(await verdicts([ofNamespace], NOW)).toEqual({ ...untouched, namespaceLabels: { team: 'b' } })
  })

  it('stand with Pod’s and namespace’s labels where both changed one after the other', async () => {
    const later = { uid: 'uid-web', iatBefore: NOW + 5, namespaceLabels: { team: 'b' } }
    expect(await verdicts([relabel, later], NOW)).toEqual({ labels: { app: 'other' }, namespaceLabels: { team: 'b' } })
  })

  it('stay refused although their Pod’s labels changed later', async () => {
    const refused = { uid: 'uid-web', iatBefore: NOW - 10 }
    expect(await verdicts([refused, relabel], NOW - 10)).toBe('wit-void')
    expect(await verdicts([refused, relabel], NOW)).toEqual({ ...untouched, labels: { app: 'other' } })
  })

  it('are not taken back by an older entry that comes again', async () => {
    expect(
      await verdicts(
        [
          { uid: 'uid-web', iatBefore: NOW },
          { uid: 'uid-web', iatBefore: NOW - 50 },
        ],
        NOW,
      ),
    ).toBe('wit-void')
    expect(await verdicts([relabel, { ...relabel, iatBefore: NOW - 9, labels: {} }], NOW)).toMatchObject({
      labels: { app: 'other' },
    })
  })
})
