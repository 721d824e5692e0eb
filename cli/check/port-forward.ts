import { Duplex, PassThrough, Writable } from 'node:stream'
import { type KubeConfig, PortForward } from '@kubernetes/client-node'
import type { OpenPort } from './serving.ts'

/** Connections to Pods through the API server, with the rights of that kubeconfig's user. */
export function createPortForward(config: KubeConfig): OpenPort {
  const forward = new PortForward(config)

  return async (namespace, pod, port) => {
    const outgoing = new PassThrough()
    const incoming = new Writable({
      write(chunk: Buffer, _, done) {
        duplex.push(chunk)
        done()
      },
    })
    const errors = new Writable({
      write(chunk: Buffer, _, done) {
        // The first message of the error stream is the port alone.
        const text = chunk.toString().trim()
        if (text !== '') duplex.destroy(new Error(text))
        done()
      },
    })
    const duplex = new Duplex({
      read() {},
      write: (chunk: Buffer, _, done) => void outgoing.write(chunk, done),
      final: (done) => void outgoing.end(done),
    })
    let socket: Awaited<ReturnType<PortForward['portForward']>>
    try {
      socket = await forward.portForward(namespace, pod, [port], incoming, errors, outgoing)
    } catch (error) {
      throw new Error(`port-forward to Pod ${pod} was refused: ${reasonOf(error)}`)
    }
    if (typeof socket === 'function') throw new Error('port-forward gave no connection')
    socket.onclose = () => duplex.destroy()
    duplex.once('close', () => socket.close())
    return duplex
  }
}

/** ws rejects with an event in place of an error. */
function reasonOf(error: unknown): string {
  const { message = 'no reason was given' } = error as { message?: string }
  return message.includes('403') ? 'you may not create pods/portforward' : message
}
