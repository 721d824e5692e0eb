import { foldChecksum, sumBytes } from './checksum.ts'
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  MAXIMUM_OPTIONS_BYTES,
  type Packet,
  PROTOCOL_TCP,
  TCP_HEADER_BYTES,
} from './decode.ts'
import { writeUint16, writeUint32 } from './words.ts'

/** RFC 791's and RFC 8200's hop limit as Linux sets it by default. */
const DEFAULT_HOP_LIMIT = 64
const MAX_LENGTH_FIELD = 0xffff

/** What buildTcp() puts into the headers. */
export interface TcpFields {
  family: 4 | 6
  /** 4 or 16 bytes, as the family has them. */
  source: Uint8Array
  destination: Uint8Array
  sourcePort: number
  destinationPort: number
  sequence: number
  acknowledgement: number
  /** FLAG_* of decode.ts. */
  flags: number
  /** As it goes into the header: scaled already. */
  window: number
  /** 64 where absent. */
  hopLimit?: number
  /** TCP options as they go into the header, a multiple of 4 bytes and at most 40. */
  options?: Uint8Array
}

/** What is written behind the addresses and ports: an answer has those of the packet that it answers. */
export type TcpAnswerFields = Omit<TcpFields, 'family' | 'source' | 'destination' | 'sourcePort' | 'destinationPort'>

/**
 * Writes a TCP packet with its IP header (IPv4: DF set, identification 0, RFC 6864) and right checksums to the start of
 * `out`. Returns its length in bytes, or 0, with nothing written, where addresses or options have a wrong length or the
 * packet does not fit `out` or the IP length field.
 */
export function buildTcp(fields: TcpFields, payload: Uint8Array, out: Uint8Array): number {
  const { family, source, destination, sourcePort, destinationPort } = fields
  const addressBytes = family === 4 ? 4 : 16
  if (source.length !== addressBytes || destination.length !== addressBytes) return 0
  return writeTcp(family, source, 0, destination, 0, sourcePort, destinationPort, fields, payload, out)
}

/**
 * As buildTcp, a packet back to where a received one came from: its addresses and ports, turned round. `packet` was
 * decoded from `bytes`. Allocates nothing.
 */
export function buildTcpAnswer(
  bytes: Uint8Array,
  packet: Packet,
  fields: TcpAnswerFields,
  payload: Uint8Array,
  out: Uint8Array,
): number {
  const { family, sourceOffset, destinationOffset, sourcePort, destinationPort } = packet
  return writeTcp(
    family,
    bytes,
    destinationOffset,
    bytes,
    sourceOffset,
    destinationPort,
    sourcePort,
    fields,
    payload,
    out,
  )
}

function writeTcp(
  family: 4 | 6,
  source: Uint8Array,
  sourceAt: number,
  destination: Uint8Array,
  destinationAt: number,
  sourcePort: number,
  destinationPort: number,
  fields: TcpAnswerFields,
  payload: Uint8Array,
  out: Uint8Array,
): number {
  const addressBytes = family === 4 ? 4 : 16
  const optionsBytes = fields.options === undefined ? 0 : fields.options.length
  const headerBytes = family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES
  const segmentBytes = TCP_HEADER_BYTES + optionsBytes + payload.length
  const totalBytes = headerBytes + segmentBytes
  if (optionsBytes % 4 !== 0 || optionsBytes > MAXIMUM_OPTIONS_BYTES) return 0
  if (totalBytes > out.length || (family === 4 ? totalBytes : segmentBytes) > MAX_LENGTH_FIELD) return 0

  const addressesOffset = family === 4 ? 12 : 8
  for (let i = 0; i < addressBytes; i++) {
    out[addressesOffset + i] = source[sourceAt + i] as number
    out[addressesOffset + addressBytes + i] = destination[destinationAt + i] as number
  }
  if (family === 4) writeIpv4Header(fields, totalBytes, out)
  else writeIpv6Header(fields, segmentBytes, out)

  writeUint16(out, headerBytes, sourcePort)
  writeUint16(out, headerBytes + 2, destinationPort)
  writeTcpHeader(fields, headerBytes, out)
  if (fields.options !== undefined) out.set(fields.options, headerBytes + TCP_HEADER_BYTES)
  out.set(payload, headerBytes + TCP_HEADER_BYTES + optionsBytes)
  const pseudoHeaderSum = sumBytes(out, addressesOffset, headerBytes, PROTOCOL_TCP + segmentBytes)
  writeUint16(out, headerBytes + 16, foldChecksum(sumBytes(out, headerBytes, totalBytes, pseudoHeaderSum)))
  return totalBytes
}

function writeIpv4Header(fields: TcpAnswerFields, totalBytes: number, out: Uint8Array): void {
  writeUint16(out, 0, 0x4500)
  writeUint16(out, 2, totalBytes)
  writeUint32(out, 4, 0x4000)
  out[8] = fields.hopLimit ?? DEFAULT_HOP_LIMIT
  out[9] = PROTOCOL_TCP
  writeUint16(out, 10, 0)
  writeUint16(out, 10, foldChecksum(sumBytes(out, 0, IPV4_HEADER_BYTES)))
}

function writeIpv6Header(fields: TcpAnswerFields, segmentBytes: number, out: Uint8Array): void {
  writeUint32(out, 0, 0x60000000)
  writeUint16(out, 4, segmentBytes)
  out[6] = PROTOCOL_TCP
  out[7] = fields.hopLimit ?? DEFAULT_HOP_LIMIT
}

function writeTcpHeader(fields: TcpAnswerFields, start: number, out: Uint8Array): void {
  const optionsBytes = fields.options === undefined ? 0 : fields.options.length
  writeUint32(out, start + 4, fields.sequence)
  writeUint32(out, start + 8, fields.acknowledgement)
  out[start + 12] = ((TCP_HEADER_BYTES + optionsBytes) / 4) << 4
  out[start + 13] = fields.flags
  writeUint16(out, start + 14, fields.window)
  writeUint32(out, start + 16, 0)
}
