/** Binds the queues as the packet path does, and dies of the first message. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { openQueueSocket } from '../../../sidecar/netlink/queue-socket.ts'
import { receiveOne } from '../../kernel/receive-one.ts'

const queue = openQueueSocket({ receiveBufferBytes: 1 << 16, receiveTimeoutMilliseconds: 100 })
for (const number of [workerData.queueTcp, workerData.queueOther]) {
  queue.bind(number, { copyRange: 128, maximumLength: 16, flags: 0 })
}
parentPort?.postMessage({ type: 'bound', queueFd: queue.fd, rawFds: [] })
const buffer = new Uint8Array(4_096)
for (let round = 0; round < 100; round++) {
  receiveOne(queue, buffer)
  if (parentPort && receiveMessageOnPort(parentPort)) throw new Error('a bug')
}
