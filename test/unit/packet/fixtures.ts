import { readdirSync, readFileSync } from 'node:fs'
import { createPacket, type DecodeFailure, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'

const FOLDER = new URL('../../fixtures/packet/', import.meta.url)

/** The names of all captures (test/fixtures/packet/capture.py). */
export const CAPTURES: readonly string[] = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.hex'))
  .map((name) => name.slice(0, -4))
  .sort()

/** The packets of one capture, in the order in which they arrived. */
export function readCapture(name: string): readonly Buffer[] {
  return readFileSync(new URL(`${name}.hex`, FOLDER), 'utf8')
    .trim()
    .split('\n')
    .map((line) => Buffer.from(line, 'hex'))
}

/** Packet `number` (from 1) of a capture. */
export function readPacket(name: string, number: number): Buffer {
  const packet = readCapture(name)[number - 1]
  if (packet === undefined) throw new Error(`capture ${name} has no packet ${number}`)
  return packet
}

/** Decodes what must decode. */
export function decoded(bytes: Uint8Array): Packet {
  const packet = createPacket()
  const result = decodePacket(bytes, packet)
  if (result !== 'ok') throw new Error(`not decoded: ${result}`)
  return packet
}

/** Only the result. */
export function resultOf(bytes: Uint8Array): 'ok' | DecodeFailure {
  return decodePacket(bytes, createPacket())
}

/** The bytes of spaced hex. */
export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
}

/** An IPv6 packet from fd00::1 to fd00::2 with these next header and headers, and a right payload length. */
export function ipv6(nextHeader: number, ...parts: readonly Uint8Array[]): Buffer {
  const header = hex(`60000000 0000 00 40
    fd00 0000 0000 0000 0000 0000 0000 0001
    fd00 0000 0000 0000 0000 0000 0000 0002`)
  const payload = Buffer.concat(parts)
  header.writeUInt16BE(payload.length, 4)
  header[6] = nextHeader
  return Buffer.concat([header, payload])
}

/** An IPv4 packet from 10.0.0.1 to 10.0.0.2 with these protocol, options (a multiple of 4 bytes) and payload. */
export function ipv4(protocol: number, payload: Uint8Array, options: Uint8Array = new Uint8Array(0)): Buffer {
  const header = hex('45000000 00004000 40000000 0a000001 0a000002')
  header[0] = 0x40 | (5 + options.length / 4)
  header.writeUInt16BE(20 + options.length + payload.length, 2)
  header[9] = protocol
  return Buffer.concat([header, options, payload])
}

/** A TCP header from port 4660 to port 80, sequence 1, acknowledgement 2, SYN, window 65535; checksum 0. */
export const TCP_SYN: Buffer = hex('1234 0050 00000001 00000002 5002 ffff 0000 0000')

/** A UDP header from port 4660 to port 53 with 4 bytes of data; checksum 0. */
export const UDP_DATAGRAM: Buffer = hex('1234 0035 000c 0000 61626364')
