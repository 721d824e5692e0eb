import { connect, createServer, type Socket } from 'node:net'

/** A TCP relay to the API server that can be cut, as a network can. */
export interface Tunnel {
  readonly port: number
  /** Connections accepted so far. */
  count(): number
  /** Ends every connection and refuses new ones, until mend(). */
  cut(): void
  mend(): void
  close(): Promise<void>
}

/** On a port of this machine, or on the UNIX socket at `path`, which processes in other network namespaces reach too. */
export async function openTunnel(target: number, path?: string): Promise<Tunnel> {
  const sockets = new Set<Socket>()
  let isCut = false
  let accepted = 0
  const server = createServer((near) => {
    if (isCut) return void near.destroy()
    accepted++
    const far = connect(target, '127.0.0.1')
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one)
      one.pipe(other)
      one.on('error', () => {})
      one.on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
    }
  })
  await new Promise<void>((resolve) => {
    if (path === undefined) server.listen(0, '127.0.0.1', resolve)
    else server.listen(path, resolve)
  })
  const cut = () => {
    isCut = true
    for (const socket of [...sockets]) socket.destroy()
  }
  return {
    port: path === undefined ? (server.address() as { port: number }).port : 0,
    count: () => accepted,
    cut,
    mend: () => {
      isCut = false
    },
    close: () => {
      cut()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}
