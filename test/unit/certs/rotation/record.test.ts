import { describe, expect, it } from '@jest/globals'
import { createSigningKey } from '../../../../certs/authority.ts'
import { activeKey, EMPTY_KEYRING, type Keyring } from '../../../../certs/rotation/keyring.ts'
import {
  parseIdentityKeyring,
  parseServingKeyring,
  serializeIdentityKeyring,
  serializeServingKeyring,
  servingKeyId,
} from '../../../../certs/rotation/record.ts'
import { advance, type RotationEvent } from '../../../../certs/rotation/transitions.ts'
import { createTrust, parseTrust, serializeTrust } from './earlier-version.ts'
import { NOW, openFacts } from './fixtures.ts'

function rotated<Material>(fresh: (index: number) => { id: string; material: Material; lifetimeSeconds: number }) {
  const events: RotationEvent<Material>[] = [
    { type: 'bootstrap', fresh: fresh(0) },
    { type: 'rotate', fresh: fresh(1), request: 'first', force: true },
    { type: 'confirm' },
    { type: 'activate' },
    { type: 'compromised', fresh: fresh(2), request: 'second' },
    { type: 'force', request: 'third' },
    { type: 'confirm' },
  ]
  const rings: Keyring<Material>[] = [EMPTY_KEYRING]
  for (const event of events) {
    const facts = openFacts(NOW + rings.length, event.type === 'bootstrap' ? { replicas: [] } : {})
    const result = advance(rings.at(-1) ?? EMPTY_KEYRING, event, facts)
    if ('refused' in result) throw new Error(result.message)
    rings.push(result.ring)
  }
  return rings.slice(1)
}

const identity = rotated(() => {
  const material = createSigningKey()
  return { id: material.kid, material, lifetimeSeconds: 3_600 }
})
const authorities = [0, 1, 2].map(() => createTrust(NOW).servingAuthority)
const serving = rotated((index) => {
  const material = authorities[index] ?? authorities[0]
  if (material === undefined) throw new TypeError()
  return { id: servingKeyId(material), material, lifetimeSeconds: 0 }
})

/** Without the key objects, whose identity differs. */
const plain = <Material>({ keys, ...ring }: Keyring<Material>) => ({
  ...ring,
  keys: keys.map(({ material: _, ...key }) => key),
})

/** As a Secret has it. */
const encode = (entries: Record<string, string>) =>
  Object.fromEntries(Object.entries(entries).map(([key, text]) => [key, Buffer.from(text).toString('base64')]))

describe('a keyring in the Secret', () => {
  it('of identity keys comes back whole from every phase, private halves too', () => {
    for (const ring of identity) {
      const found = parseIdentityKeyring(serializeIdentityKeyring(ring))
      expect(plain(found)).toEqual(plain(ring))
      for (const [index, { material }] of found.keys.entries()) {
        expect(material.privateKey.equals(ring.keys[index]?.material.privateKey as typeof material.privateKey)).toBe(
          true,
        )
      }
    }
  })

  it('of serving CAs comes back whole from every phase', () => {
    for (const ring of serving) expect(parseServingKeyring(serializeServingKeyring(ring))).toEqual(ring)
  })

  it.each([undefined, ''])('is empty where there is none: %j', (text) => {
    expect([parseIdentityKeyring(text), parseServingKeyring(text)]).toEqual([EMPTY_KEYRING, EMPTY_KEYRING])
  })
})

describe('earlier versions', () => {
  const trust = createTrust(NOW)
  const both = { ...trust, signingKeys: [createSigningKey(), trust.signingKey] }

  it('wrote what is read as keys of unknown age, whose identities may live as long as any', () => {
    const { 'identity.json': identityText, 'serving.json': servingText } = serializeTrust(both)
    const unknown = { generation: 0, since: 0 }
    expect(plain(parseIdentityKeyring(identityText))).toEqual({
      generation: 0,
      keys: [
        { id: both.signingKeys[0]?.kid, state: 'previous', lifetimeSeconds: 86_400, ...unknown },
        { id: trust.signingKey.kid, state: 'active', lifetimeSeconds: 86_400, ...unknown },
      ],
    })
    expect(plain(parseServingKeyring(servingText))).toEqual({
      generation: 0,
      keys: [{ id: servingKeyId(trust.servingAuthority), state: 'active', lifetimeSeconds: 0, ...unknown }],
    })
  })

  it('read what is written now, with the same keys and the same signer', () => {
    for (const [index, ring] of identity.entries()) {
      const servingRing = serving[index]
      if (servingRing === undefined) throw new TypeError()
      const entries = {
        'identity.json': serializeIdentityKeyring(ring),
        'serving.json': serializeServingKeyring(servingRing),
      }
      const found = parseTrust(encode(entries))
      expect(found?.signingKeys.map(({ kid }) => kid)).toEqual(ring.keys.map(({ id }) => id))
      expect(found?.signingKey.kid).toBe(activeKey(ring)?.id)
      expect(found?.servingAuthorities).toEqual(servingRing.keys.map(({ material }) => material))
      expect(found?.servingAuthority).toEqual(activeKey(servingRing)?.material)
    }
  })
})

describe('a damaged entry', () => {
  const item = JSON.parse(serializeIdentityKeyring(identity[0] ?? EMPTY_KEYRING))[0] as Record<string, unknown>
  const other = JSON.parse(serializeIdentityKeyring(identity[1] ?? EMPTY_KEYRING))[1] as Record<string, unknown>
  it.each([
    ['{"key":{"d":"secret-part"', 'no JSON'],
    ['{}', 'no list'],
    ['[]', 'the list is empty'],
    [JSON.stringify(['secret-part']), 'a state is not one of'],
    [JSON.stringify([{ ...item, state: 'secret-part' }]), 'a state is not one of'],
    [JSON.stringify([{ ...item, state: 'previous' }]), 'exactly one key must be active, not 0'],
    [JSON.stringify([item, { ...other, state: 'active' }]), 'exactly one key must be active, not 2'],
    [JSON.stringify([item, { ...item, state: 'previous' }]), 'a key occurs twice'],
    [JSON.stringify([{ ...item, key: { d: 'secret-part' } }]), 'no private P-256 JWK'],
    [JSON.stringify([{ ...item, key: undefined }]), 'no private P-256 JWK'],
    [JSON.stringify([{ ...item, since: 'secret-part' }]), 'since is no whole number'],
    [JSON.stringify([{ ...item, generation: -1 }]), 'generation is no whole number'],
    [JSON.stringify([{ ...item, lifetimeSeconds: 1.5 }]), 'lifetimeSeconds is no whole number'],
    [JSON.stringify([{ ...item, confirmed: 'secret-part' }]), 'confirmed.generation is no whole number'],
    [JSON.stringify([{ ...item, confirmed: { generation: 1 } }]), 'confirmed.at is no whole number'],
    [JSON.stringify([{ ...item, compromised: 'secret-part' }]), 'compromised can only be true'],
    [JSON.stringify([{ ...item, ring: { generation: 'secret-part' } }]), 'ring.generation is no whole number'],
    [JSON.stringify([{ ...item, ring: { request: ['secret-part'] } }]), 'ring.request is no text'],
  ])('is refused by name, without quoting it: %#', (text, part) => {
    expect(() => parseIdentityKeyring(text)).toThrow(
      expect.objectContaining({ code: 'authority-key', message: expect.stringContaining(part) }),
    )
    expect(() => parseIdentityKeyring(text)).not.toThrow(/secret-part/)
  })

  it('of the serving CA has its own code', () => {
    for (const text of ['{', '[]', '[{"state":"active","certificate":"secret-part"}]']) {
      expect(() => parseServingKeyring(text)).toThrow(
        expect.objectContaining({ code: 'authority-serving', message: expect.not.stringContaining('secret-part') }),
      )
    }
  })

  it('never has a generation below that of a key in it', () => {
    const text = JSON.stringify([{ ...item, generation: 70, confirmed: { generation: 90, at: 1 }, ring: undefined }])
    expect(parseIdentityKeyring(text).generation).toBe(90)
  })
})
