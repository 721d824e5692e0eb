/** What a connection is called in the packet path's tables. */
import type { Packet } from '../packet/decode.ts'
import { readUint32 } from '../packet/words.ts'

/** Two IPv6 addresses, both ports, a sequence number. */
export const MAXIMUM_KEY_WORDS = 10

/** A key of `length` words. */
export interface ConnectionKey {
  readonly words: Int32Array
  length: number
}

export function createConnectionKey(): ConnectionKey {
  return { words: new Int32Array(MAXIMUM_KEY_WORDS), length: 0 }
}

const tuple = createConnectionKey()
const connection = createConnectionKey()

/**
 * Names a connection from this Pod's side: local and remote address and port, the same for both directions. Valid until
 * the next call.
 */
export function tupleKey(bytes: Buffer, packet: Packet, inbound: boolean): ConnectionKey {
  tuple.length = writeTuple(bytes, packet, inbound, tuple.words)
  return tuple
}

/** A connection's ends as conntrack has them: addresses of 4 or 16 bytes. */
export interface ConnectionEnds {
  readonly local: Uint8Array
  readonly localPort: number
  readonly remote: Uint8Array
  readonly remotePort: number
}

/** The same name as tupleKey() gives its packets. Valid until the next call of either. */
export function endsKey({ local, localPort, remote, remotePort }: ConnectionEnds): ConnectionKey {
  let end = 0
  for (const address of [local, remote]) {
    for (let i = 0; i < address.length; i += 4) tuple.words[end++] = readUint32(address, i)
  }
  tuple.words[end++] = (localPort << 16) | remotePort
  tuple.length = end
  return tuple
}

/** Names a SYN by its tuple and its sequence number. Valid until the next call. */
export function connectionKey(bytes: Buffer, packet: Packet, inbound: boolean, isn: number): ConnectionKey {
  const end = writeTuple(bytes, packet, inbound, connection.words)
  connection.words[end] = isn
  connection.length = end + 1
  return connection
}

/** The key as text, for a table that is not asked for every packet. */
export function keyText(key: ConnectionKey): string {
  return key.words.subarray(0, key.length).join(' ')
}

function writeTuple(bytes: Buffer, packet: Packet, inbound: boolean, words: Int32Array): number {
  const localAt = inbound ? packet.destinationOffset : packet.sourceOffset
  const remoteAt = inbound ? packet.sourceOffset : packet.destinationOffset
  const localPort = inbound ? packet.destinationPort : packet.sourcePort
  const remotePort = inbound ? packet.sourcePort : packet.destinationPort
  let end = 0
  for (let i = 0; i < packet.addressBytes; i += 4) words[end++] = readUint32(bytes, localAt + i)
  for (let i = 0; i < packet.addressBytes; i += 4) words[end++] = readUint32(bytes, remoteAt + i)
  words[end++] = (localPort << 16) | remotePort
  return end
}
