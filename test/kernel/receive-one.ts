import { createDatagramBatch, datagramBytes } from '../../sidecar/netlink/datagram-batch.ts'
import type { QueueSocket } from '../../sidecar/netlink/queue-socket.ts'

/** One datagram of a queue socket into `buffer`: its bytes, or -errno. */
export function receiveOne(socket: Pick<QueueSocket, 'receive'>, buffer: Uint8Array): number {
  const batch = createDatagramBatch(1, buffer.length)
  const count = socket.receive(batch)
  if (count < 0) return count
  const bytes = datagramBytes(batch, 0)
  buffer.set(batch.buffer.subarray(0, bytes))
  return bytes
}
