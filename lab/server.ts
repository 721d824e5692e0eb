import { createSocket } from 'node:dgram'
import { createServer, type Socket } from 'node:net'
import type { ServePort } from './agent-protocol.ts'

/**
 * The server behind a declared containerPort whose container has no command. TCP: says `<name>` and a newline at
 * once, then returns what it gets. A first line `SINK <bytes>` makes it swallow that many bytes and answer `OK`.
 * UDP: answers each datagram with `<name>` and a newline.
 */
export function startServer({ protocol, port }: ServePort, name: string): Promise<void> {
  return protocol === 'TCP' ? startTcpServer(port, name) : startUdpServer(port, name)
}

/** How accepted TCP connections ended (`closed`, or an errno name), in the order of their ends, and how many stand. */
export interface Served {
  readonly open: number
  readonly endings: readonly string[]
}

let openConnections = 0
/** The newest ones: a long run must not fill the memory. */
let endings: string[] = []
const ENDINGS = 1000

export function servedConnections(): Served {
  return { open: openConnections, endings }
}

function watchEnd(socket: Socket): void {
  let how = 'closed'
  openConnections++
  socket.on('error', (error: NodeJS.ErrnoException) => {
    how = error.code ?? error.message
    socket.destroy()
  })
  socket.once('close', () => {
    openConnections--
    endings = [...endings.slice(1 - ENDINGS), how]
  })
}

function startTcpServer(port: number, name: string): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => {
    watchEnd(socket)
    socket.write(`${name}\n`)
    socket.once('data', (first) => answer(socket, Buffer.from(first as Uint8Array)))
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // `::` takes IPv4 too; without IPv6 in the kernel Node falls back to 0.0.0.0 where no host is given.
    server.listen({ port, backlog: 4096 }, () => resolve())
  })
}

function answer(socket: Socket, first: Buffer): void {
  const newline = first.indexOf(10)
  const size = /^SINK ([0-9]{1,15})$/.exec(first.subarray(0, Math.max(newline, 0)).toString('latin1'))?.[1]
  if (size === undefined) {
    socket.write(first)
    socket.pipe(socket)
    return
  }
  let left = Number(size) - (first.length - newline - 1)
  const finish = () => {
    socket.end('OK\n')
  }
  if (left <= 0) {
    finish()
    return
  }
  socket.on('data', (chunk) => {
    left -= chunk.length
    if (left <= 0) finish()
  })
}

function startUdpServer(port: number, name: string): Promise<void> {
  const reply = Buffer.from(`${name}\n`)
  const bind = (type: 'udp4' | 'udp6') =>
    new Promise<void>((resolve, reject) => {
      const socket = createSocket({ type, ipv6Only: type === 'udp6' })
      socket.once('error', reject)
      socket.bind(port, () => {
        socket.off('error', reject)
        socket.on('error', () => undefined) // an ICMP error of an earlier answer concerns nobody here
        resolve()
      })
      socket.on('message', (_, peer) => socket.send(reply, peer.port, peer.address))
    })
  return Promise.all([bind('udp4'), bind('udp6').catch(() => undefined)]).then(() => undefined)
}
