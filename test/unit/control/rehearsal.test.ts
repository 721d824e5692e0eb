import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { createSigningKey, exportPublicJwk, trustBundle } from '../../../certs/authority.ts'
import { issueWit } from '../../../certs/wit.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { rehearseVerification } from '../../../sidecar/control/rehearsal.ts'
import { encodeWitSection } from '../../../sidecar/handshake/frame.ts'

const NOW = 1_900_000_000
const authority = createSigningKey()

let directory = ''
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'synguard-rehearsal-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

async function rehearse(bundle = trustBundle([authority])): Promise<number> {
  const wit = await issueWit(authority, {
    identity: {
      ...{ namespace: 'shop', name: 'web', uid: 'uid-web', serviceAccount: 'default' },
      ...{ labels: {}, namespaceLabels: {}, addresses: ['10.0.0.1'], ports: [] },
    },
    cnf: exportPublicJwk(createSigningKey().privateKey),
    trustDomain: 'cluster.local',
    issuer: 'https://issuer',
    issuedAt: NOW,
    lifetimeSeconds: 3_600,
    jti: 'abcdefghijklmnopqrstuv',
  })
  return await rehearseVerification({
    section: encodeWitSection(decodeWitParts(wit)),
    directory,
    trustDomain: 'cluster.local',
    issuer: 'https://issuer',
    skewSeconds: 120,
    bundle: () => bundle,
    own: () => ({ generation: 0, privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }),
    now: () => NOW * 1000,
  })
}

describe('a rehearsal of verifications', () => {
  it('finds the own WIT good in every round, and leaves nothing in the folder', async () => {
    expect(await rehearse()).toBe(6)
    expect(readdirSync(directory)).toEqual([])
  })

  it('leaves nothing where it finds it bad either', async () => {
    expect(await rehearse(trustBundle([createSigningKey()]))).toBe(0)
    expect(readdirSync(directory)).toEqual([])
  })
})
