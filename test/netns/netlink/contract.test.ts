import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll } from '@jest/globals'
import { openConntrack } from '../../../sidecar/netlink/conntrack.ts'
import { describeKernelContract, type KernelUnderTest } from '../../kernel/contract.ts'
import { enterNewNamespace } from './namespace.ts'

const namespace = enterNewNamespace()
afterAll(() => namespace.leave())
for (const [port, queue] of [
  [7001, 1],
  [7002, 2],
]) {
  namespace.run(`iptables -w -t mangle -A INPUT -p udp --dport ${port} -j NFQUEUE --queue-num ${queue}`)
}
namespace.run('iptables -w -t filter -A INPUT -m mark ! --mark 0 -j CONNMARK --save-mark')

async function openUdp(port: number): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.bind(port, '127.0.0.1')
  await once(socket, 'listening')
  return socket
}

/** The machine's own kernel, in this file's namespace; each test finds an empty connection tracking table. */
async function openRealKernel(): Promise<KernelUnderTest> {
  const conntrack = openConntrack()
  const stale: Parameters<typeof conntrack.remove>[0][] = []
  conntrack.dump(undefined, (flow) => stale.push(flow.original))
  for (const tuple of stale) conntrack.remove(tuple)
  conntrack.close()

  const delivered = new Map<number, string[]>([
    [7001, []],
    [7002, []],
  ])
  const sender = await openUdp(0)
  const receivers: Socket[] = []
  for (const [port, payloads] of delivered) {
    const receiver = await openUdp(port)
    receiver.on('message', (message) => payloads.push(message.toString()))
    receivers.push(receiver)
  }
  return {
    sourcePort: sender.address().port,
    openTransport: () => undefined,
    sendDatagram: (port, payload) =>
      new Promise((resolve, reject) => {
        sender.send(payload, port, '127.0.0.1', (error) => (error === null ? resolve() : reject(error)))
      }),
    async takeDelivered(port, count) {
      const payloads = delivered.get(port) ?? []
      for (let i = 0; i < 30 && payloads.length < count; i++) await sleep(10)
      return payloads.splice(0)
    },
    async close() {
      for (const socket of [sender, ...receivers]) {
        const closed = once(socket, 'close')
        socket.close()
        await closed
      }
    },
  }
}

describeKernelContract('the kernel of this machine', openRealKernel)
