import { createHash, createHmac, createPublicKey, diffieHellman, hkdfSync, verify } from 'node:crypto'
import { inflateRawSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import { WIT_INFLATED_BYTES, WIT_PARTS_BYTES } from '../../../certs/limits.ts'
import { verifyWit } from '../../../certs/wit.ts'
import { joinWitParts } from '../../../certs/wit-parts.ts'
import { parseAddress } from '../../../policy/address.ts'
import {
  ADDRESSES_AT,
  createFrame,
  decodeFrame,
  FAMILY_AT,
  FRAME_MAGIC,
  FRAME_PROOF,
  FRAME_SYN,
  FRAME_SYN_ACK,
  FRAME_VERSION,
  HASH_BYTES,
  MAC_AT,
  MAXIMUM_FRAME_BYTES,
  NONCE_AT,
  NONCE_BYTES,
  PROOF_BYTES,
  PROOF_HASH_AT,
  SYN_WIT_AT,
  synAckWitAt,
  witSectionParts,
} from '../../../sidecar/handshake/frame.ts'
import { MAC_BYTES } from '../../../sidecar/handshake/hmac.ts'
import { NONCE_EPOCH_SECONDS, ROLE_CLIENT, ROLE_SERVER } from '../../../sidecar/handshake/proof.ts'
import { readTables, readText } from './checkout.ts'
import { computeVectors, readPrivateKey, type VectorConnection, type Vectors } from './wire-vectors.ts'

const document = readText('docs/wire.md')
const vectors = JSON.parse(readText('test/fixtures/handshake/vectors.json')) as Vectors
const { client, server } = vectors

/** The first table below a heading of docs/wire.md. */
function tableBelow(heading: string): string[][] {
  const [, section = ''] = document.split(`\n## ${heading}\n`)
  return readTables(section.split('\n## ')[0] ?? '')[0] ?? []
}

/** A field's row: its offset in each family, its bytes, its name up to the first comma or colon. */
const brief = (rows: string[][]): string[][] => rows.map((row) => row.map((cell) => cell.split(/[,:]/)[0] ?? ''))

const texts = (...values: (number | string)[]): string[] => values.map(String)

// ---- docs/wire.md by hand, with node:crypto alone ----

const hmac = (key: Uint8Array, ...parts: Uint8Array[]): Buffer =>
  createHmac('sha256', key).update(Buffer.concat(parts)).digest()

const u8 = (value: number): Buffer => Buffer.from([value])
const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255])
function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}
const address = (text: string): Uint8Array => parseAddress(text) ?? new Uint8Array(0)
const hex = (text: string): Buffer => Buffer.from(text, 'hex')

function pairwiseKeyByHand(): Buffer {
  const z = diffieHellman({
    privateKey: readPrivateKey(client),
    publicKey: createPublicKey(readPrivateKey(server)),
  })
  const [t1, t2] = [client.thumbprint, server.thumbprint].sort()
  return Buffer.from(hkdfSync('sha256', z, '', `synguard/1${t1}${t2}`, 32))
}

const endpoints = (c: VectorConnection): Buffer =>
  Buffer.concat([address(c.client.address), u16(c.client.port), address(c.server.address), u16(c.server.port)])

function noncesByHand(c: VectorConnection): { clientNonce: Buffer; serverNonce: Buffer } {
  const [from, to] = [address(c.client.address), address(c.server.address)]
  const ports = { client: u16(c.client.port), server: u16(c.server.port) }
  const ofClient = hmac(hex(client.nonceSecret), u8(2), from, to, ports.client, ports.server, u32(c.clientIsn))
  const rest = [u32(c.clientIsn), u32(c.serverIsn), u32(Math.floor(vectors.issuedAt / 60))]
  const ofServer = hmac(hex(server.nonceSecret), u8(1), to, from, ports.server, ports.client, ...rest)
  return { clientNonce: ofClient.subarray(0, 16), serverNonce: ofServer.subarray(0, 16) }
}

function macByHand(c: VectorConnection, role: number): Buffer {
  const { clientNonce, serverNonce } = noncesByHand(c)
  const hashes = [hex(client.witSha256), hex(server.witSha256)]
  return hmac(pairwiseKeyByHand(), ...hashes, u8(role), u8(1), clientNonce, serverNonce, u8(c.family), endpoints(c))
}

function frameByHand(type: number, ...parts: Uint8Array[]): string {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from('SYNG'), u8(1), u8(type), u16(8 + body.length), body]).toString('hex')
}

function sectionByHand(wit: string): string {
  const parts = wit.split('.').map((part) => Buffer.from(part, 'base64url'))
  return Buffer.concat(parts.flatMap((part) => [u16(part.length), part])).toString('hex')
}

function thumbprintByHand({ kty, crv, x, y }: Readonly<Record<string, string>>): string {
  return createHash('sha256').update(`{"crv":"${crv}","kty":"${kty}","x":"${x}","y":"${y}"}`).digest('base64url')
}

describe('the vectors of docs/wire.md', () => {
  it('are what the code makes', () => {
    expect(computeVectors(vectors)).toEqual(vectors)
  })

  it.each([
    ['client', client],
    ['server', server],
  ] as const)('have the %s WIT that the document describes', (_, pod) => {
    const [header = '', payload = '', signature = ''] = pod.wit.split('.')
    const [key] = vectors.bundle.keys
    expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toEqual({
      alg: 'ES256',
      kid: thumbprintByHand({ ...key } as Record<string, string>),
      typ: 'wit+jwt',
      zip: 'DEF',
    })
    const publicKey = createPublicKey({ key: { ...key }, format: 'jwk' })
    const signed = { key: publicKey, dsaEncoding: 'ieee-p1363' } as const
    expect(verify('sha256', Buffer.from(`${header}.${payload}`), signed, Buffer.from(signature, 'base64url'))).toBe(
      true,
    )
    const claims = JSON.parse(inflateRawSync(Buffer.from(payload, 'base64url')).toString())
    const documented = tableBelow('WIT').map(([claim = '']) => claim.replaceAll('`', ''))
    expect(Object.keys(claims).sort()).toEqual(documented.sort())
    expect(thumbprintByHand(claims.cnf.jwk)).toBe(pod.thumbprint)
    expect(createHash('sha256').update(pod.wit).digest('hex')).toBe(pod.witSha256)
    expect(sectionByHand(pod.wit)).toBe(pod.witSection)
  })

  it('have WITs that verify when they are valid', async () => {
    const { trustDomain, issuer } = vectors
    const expected = { now: vectors.issuedAt, trustDomain, issuer, skewSeconds: 1 }
    const verified = await verifyWit(client.wit, vectors.bundle, expected)
    expect(verified.subject).toBe('spiffe://cluster.local/ns/shop/sa/client')
  })

  it('have the pairwise key that either end derives', () => {
    expect(pairwiseKeyByHand().toString('hex')).toBe(vectors.pairwiseKey)
  })

  it.each(vectors.connections.map((c) => [c.family, c] as const))('have IPv%i frames and MACs', (_, c) => {
    const { clientNonce, serverNonce } = noncesByHand(c)
    expect({ syn: c.synFrame, synAck: c.synAckFrame, proof: c.proofFrame }).toEqual({
      syn: frameByHand(1, clientNonce, hex(client.witSection)),
      synAck: frameByHand(2, serverNonce, macByHand(c, 1), u8(c.family), u8(0), endpoints(c), hex(server.witSection)),
      proof: frameByHand(3, clientNonce, macByHand(c, 2), hex(client.witSha256)),
    })
  })

  it.each(vectors.connections.map((c) => [c.family, c] as const))(
    'have an IPv%i proof that ends at ISN_c + 1',
    (_, c) => {
      expect([c.proofSequence, c.proofAcknowledgement]).toEqual([(c.clientIsn + 1 - 88) >>> 0, (c.serverIsn + 1) >>> 0])
    },
  )

  it.each(vectors.connections.map((c) => [c.family, c] as const))('decode, IPv%i', (_, c) => {
    const frame = createFrame()
    const types = [c.synFrame, c.synAckFrame, c.proofFrame].map((text) => {
      const bytes = hex(text)
      return [decodeFrame(bytes, 0, bytes.length, frame), frame.type]
    })
    expect(types).toEqual([
      ['ok', FRAME_SYN],
      ['ok', FRAME_SYN_ACK],
      ['ok', FRAME_PROOF],
    ])
    const parts = witSectionParts(hex(c.synFrame).subarray(SYN_WIT_AT))
    const { header, payload, signature } = parts ?? {}
    expect(
      joinWitParts({
        header: Buffer.from(header ?? []),
        payload: Buffer.from(payload ?? []),
        signature: Buffer.from(signature ?? []),
      }),
    ).toBe(client.wit)
  })
})

describe('the tables of docs/wire.md', () => {
  const [versionAt, typeAt, lengthAt] = [4, 5, 6]

  it('have the SYN frame as the code has it', () => {
    expect(brief(tableBelow('SYN frame'))).toEqual([
      texts(0, 4, 'magic'),
      texts(versionAt, 1, 'version'),
      texts(typeAt, 1, 'type'),
      texts(lengthAt, 2, 'length of the whole frame'),
      texts(NONCE_AT, NONCE_BYTES, 'nonce_c'),
      texts(SYN_WIT_AT, 'rest', 'WIT section of the client'),
    ])
  })

  it('have the SYN-ACK frame as the code has it', () => {
    const [v4, v6] = [4, 16].map((bytes) => ({
      clientPort: ADDRESSES_AT + bytes,
      server: ADDRESSES_AT + bytes + 2,
      serverPort: ADDRESSES_AT + 2 * bytes + 2,
    }))
    const both = (at: number, ...rest: (number | string)[]): string[] => texts(at, at, ...rest)
    expect(brief(tableBelow('SYN-ACK frame'))).toEqual([
      both(0, 4, 'magic'),
      both(versionAt, 1, 'version'),
      both(typeAt, 1, 'type'),
      both(lengthAt, 2, 'length of the whole frame'),
      both(NONCE_AT, NONCE_BYTES, 'nonce_s'),
      both(MAC_AT, MAC_BYTES, 'MAC with role 1'),
      both(FAMILY_AT, 1, 'address family'),
      both(FAMILY_AT + 1, 1, '0'),
      both(ADDRESSES_AT, '4 or 16', 'client address'),
      texts(v4?.clientPort ?? 0, v6?.clientPort ?? 0, 2, 'client port'),
      texts(v4?.server ?? 0, v6?.server ?? 0, '4 or 16', 'server address'),
      texts(v4?.serverPort ?? 0, v6?.serverPort ?? 0, 2, 'server port'),
      texts(synAckWitAt(4), synAckWitAt(6), 'rest', 'WIT section of the server'),
    ])
  })

  it('have the proof frame as the code has it', () => {
    expect(brief(tableBelow('Proof frame'))).toEqual([
      texts(0, 4, 'magic'),
      texts(versionAt, 1, 'version'),
      texts(typeAt, 1, 'type'),
      texts(lengthAt, 2, 'length'),
      texts(NONCE_AT, NONCE_BYTES, 'nonce_c'),
      texts(MAC_AT, MAC_BYTES, 'MAC with role 2'),
      texts(PROOF_HASH_AT, HASH_BYTES, "SHA-256 of the client's WIT"),
    ])
    expect(PROOF_HASH_AT + HASH_BYTES).toBe(PROOF_BYTES)
  })

  it('have no gap and no overlap in the MAC message', () => {
    const rows = tableBelow('MAC')
    for (const [family, column] of [
      [4, 0],
      [6, 1],
    ] as const) {
      const addressBytes = family === 4 ? 4 : 16
      let at = 0
      for (const row of rows) {
        expect(row[column]).toBe(String(at))
        at += row[2] === '4 or 16' ? addressBytes : Number(row[2])
      }
      // Two hashes, role, version, two nonces, family, two addresses, two ports.
      expect(at).toBe(2 * HASH_BYTES + 2 + 2 * NONCE_BYTES + 1 + 2 * addressBytes + 4)
    }
  })

  it('name the numbers of the code', () => {
    const numbers = {
      magic: `\`${FRAME_MAGIC.toString(16).replaceAll(/(..)(?=.)/g, '$1 ')}\``,
      version: `Version ${FRAME_VERSION}.`,
      types: [FRAME_SYN, FRAME_SYN_ACK, FRAME_PROOF].map((type) => `| type, ${type} |`),
      roles: `role: ${ROLE_SERVER} in a SYN-ACK, ${ROLE_CLIENT} in a proof`,
      proof: `sequence number ISN_c + 1 - ${PROOF_BYTES}`,
      proofLength: `| length, ${PROOF_BYTES} |`,
      epoch: `epoch is the time in seconds since 1970 divided by ${NONCE_EPOCH_SECONDS}`,
      frame: `at most ${MAXIMUM_FRAME_BYTES.toLocaleString('en')} bytes`,
      parts: `at most ${WIT_PARTS_BYTES.toLocaleString('en')} bytes together`,
      inflated: `at most ${WIT_INFLATED_BYTES.toLocaleString('en')}`,
    }
    const missing = Object.values(numbers)
      .flat()
      .filter((text) => !document.replaceAll(/\s+/g, ' ').includes(text))
    expect(missing).toEqual([])
  })
})
