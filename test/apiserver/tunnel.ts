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

export async function openTunnel(target: number): Promise<Tunnel> {
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
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    isCut = true
    for (const socket of [...sockets]) socket.destroy()
  }
  return {
    port: (server.address() as { port: number }).port,
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
