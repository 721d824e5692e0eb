/**
 * An application in one network namespace: connections whose ports and ends a test chooses. It is asked over its IPC
 * channel, and does all that it is asked at once.
 *
 *   listen         notes what arrives, and echoes it
 *   heard          what it got from this port since it was last asked
 *   end accepted   a FIN on what it accepted from this port
 *   open           connects, within 25 s or `seconds`
 *   say            the echo, within 25 s or `seconds`; what is said before the connection is open waits until it is
 *   end, reset     a FIN, or a reset
 */
import { connect, createServer, type Socket } from 'node:net'
import { answerChannel } from '../../../lab/channel.ts'
import type { Heard, Outcome, PeerRequest } from './attacker.ts'

/** What must succeed has the time that a busy machine takes, and a kernel's repetitions, each twice as late as the last. */
const LIMIT_SECONDS = 25
const sockets = new Map<string, Socket>()
const accepted = new Set<Socket>()
/** What the server met since it was last asked, by the client's port. */
let heard: (Heard & { readonly from: number })[] = []

function listen(port: number): Promise<unknown> {
  return new Promise((done) => {
    createServer({ allowHalfOpen: true }, (socket) => {
      const from = socket.remotePort ?? 0
      heard.push({ from, accepted: 1, text: '' })
      accepted.add(socket)
      socket.on('data', (data) => {
        heard.push({ from, accepted: 0, text: data.toString('latin1') })
        socket.write(data)
      })
      socket.on('error', () => undefined)
      socket.on('close', () => accepted.delete(socket))
    }).listen(port, '0.0.0.0', () => done(null))
  })
}

function open(request: Extract<PeerRequest, { do: 'open' }>): Promise<Outcome> {
  const { name, address, port, from, seconds = LIMIT_SECONDS } = request
  const socket = connect({ host: address, port, localPort: from, noDelay: true, allowHalfOpen: true })
  sockets.set(name, socket)
  return settled(socket, seconds, (done) => socket.once('connect', () => done({ opened: true })))
}

function say(name: string, text: string, seconds = LIMIT_SECONDS): Promise<Outcome> {
  const socket = sockets.get(name)
  if (!socket) return Promise.resolve({ error: 'no such connection' })
  let echoed = ''
  return settled(socket, seconds, (done) => {
    socket.on('data', (data) => {
      echoed += data.toString('latin1')
      if (echoed.length >= text.length) done({ echoed })
    })
    socket.resume().write(text)
  }).finally(() => socket.removeAllListeners('data').pause())
}

/** What `start` says, or how the connection failed meanwhile. */
function settled(socket: Socket, seconds: number, start: (done: (value: Outcome) => void) => void): Promise<Outcome> {
  return new Promise((done) => {
    const timer = setTimeout(() => finish({ error: 'timeout' }), seconds * 1_000)
    const failed = (error: NodeJS.ErrnoException) => finish({ error: error.code ?? error.message })
    const closed = () => finish({ error: 'closed' })
    function finish(value: Outcome): void {
      clearTimeout(timer)
      socket.removeListener('close', closed)
      done(value)
    }
    socket.once('error', failed)
    socket.once('close', closed)
    start(finish)
  })
}

async function obey(request: PeerRequest): Promise<unknown> {
  switch (request.do) {
    case 'listen':
      return await listen(request.port)
    case 'heard': {
      const last = heard.filter(({ from }) => from === request.from)
      // What other connections left, or still send, is nobody's business here.
      heard = heard.filter(({ from }) => from !== request.from)
      return {
        accepted: last.reduce((sum, one) => sum + one.accepted, 0),
        text: last.map(({ text }) => text).join(''),
      }
    }
    case 'end accepted':
      for (const socket of accepted) if (socket.remotePort === request.from) socket.end()
      return null
    case 'open':
      return await open(request)
    case 'say':
      return await say(request.name, request.text, request.seconds)
    case 'end':
      sockets.get(request.name)?.end().resume()
      return null
    case 'reset': {
      const socket = sockets.get(request.name)
      // A reset of what is not open yet would wait until it is.
      if (socket?.connecting) socket.destroy()
      else socket?.resetAndDestroy()
      return null
    }
  }
}

answerChannel(obey)
