/** Waits in `receive` on a queue socket of its own and tells what it got; for wake.test.ts. */

import { parentPort } from 'node:worker_threads'
import { isWakeup } from '../../../sidecar/netlink/queue.ts'
import { openQueueSocket } from '../../../sidecar/netlink/queue-socket.ts'
import { receiveOne } from '../../kernel/receive-one.ts'

const socket = openQueueSocket({ receiveBufferBytes: 1 << 20, receiveTimeoutMilliseconds: 10_000 })
const buffer = new Uint8Array(1 << 17)
parentPort?.postMessage({ fd: socket.fd })
const bytes = receiveOne(socket, buffer)
parentPort?.postMessage({ woken: bytes > 0 && isWakeup(buffer, bytes) })
socket.close()
