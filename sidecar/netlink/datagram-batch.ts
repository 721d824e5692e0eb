/** Room for several datagrams that one recvmmsg(2) fills. */
import koffi from 'koffi'
import { readU32, writeU32 } from './bytes.ts'

// struct msghdr and struct mmsghdr of <bits/socket.h> on 64-bit machines.
const MSG_IOV_AT = 16
const MSG_IOVLEN_AT = 24
const MSG_LEN_AT = 56
const MMSGHDR_BYTES = 64
/** struct iovec { void *iov_base; size_t iov_len; } */
const IOVEC_BYTES = 16

export interface DatagramBatch {
  /** How many datagrams it holds, each in `slotBytes` of `buffer` on its own. */
  readonly capacity: number
  readonly slotBytes: number
  readonly buffer: Buffer
  /** struct mmsghdr[capacity]. */
  readonly headers: Buffer
  /** struct iovec[capacity], which `headers` points to: kept alive here. */
  readonly vectors: Buffer
}

/** A batch of `capacity` datagrams of at most `slotBytes` each. */
export function createDatagramBatch(capacity: number, slotBytes: number): DatagramBatch {
  // Memory of their own, not of Node's pool: their addresses stand as long as they live.
  const buffer = Buffer.from(new ArrayBuffer(capacity * slotBytes))
  const headers = Buffer.from(new ArrayBuffer(capacity * MMSGHDR_BYTES))
  const vectors = Buffer.from(new ArrayBuffer(capacity * IOVEC_BYTES))
  const bufferAddress = koffi.address(buffer)
  const vectorsAddress = koffi.address(vectors)
  for (let i = 0; i < capacity; i++) {
    vectors.writeBigUInt64LE(bufferAddress + BigInt(i * slotBytes), i * IOVEC_BYTES)
    vectors.writeBigUInt64LE(BigInt(slotBytes), i * IOVEC_BYTES + 8)
    headers.writeBigUInt64LE(vectorsAddress + BigInt(i * IOVEC_BYTES), i * MMSGHDR_BYTES + MSG_IOV_AT)
    headers.writeBigUInt64LE(1n, i * MMSGHDR_BYTES + MSG_IOVLEN_AT)
  }
  return { capacity, slotBytes, buffer, headers, vectors }
}

/** Bytes of the datagram at `index`, as the last receive left them. */
export function datagramBytes(batch: DatagramBatch, index: number): number {
  return readU32(batch.headers, index * MMSGHDR_BYTES + MSG_LEN_AT)
}

/** Puts a datagram into its place, as the kernel would: cut where it is too long. */
export function putDatagram(batch: DatagramBatch, index: number, datagram: Uint8Array): void {
  const bytes = Math.min(datagram.length, batch.slotBytes)
  batch.buffer.set(datagram.subarray(0, bytes), index * batch.slotBytes)
  writeU32(batch.headers, index * MMSGHDR_BYTES + MSG_LEN_AT, bytes)
}
