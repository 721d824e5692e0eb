/**
 * An application in one network namespace: connections whose ports and ends a test chooses. Lines of JSON on stdin, each
 * answered by one on stdout.
 *
 *   {"do":"listen","port":n}                             notes what arrives, and echoes it
 *   {"do":"heard","from":n}                              {accepted, text}: what it got since it was last asked, from any
 *                                                        port or from this one
 *   {"do":"end accepted"}                                a FIN on all that it accepted
 *   {"do":"open","name":s,"address":s,"port":n,"from":n} {opened} or {error}, within 6 s or `seconds`
 *   {"do":"say","name":s,"text":s}                       the echo, or {error}, within 6 s
 *   {"do":"end"|"reset","name":s}                        a FIN, or a reset
 */
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { PeerRequest } from './attacker.ts'

const LIMIT_SECONDS = 6
const print = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)
const sockets = new Map<string, Socket>()
const accepted = new Set<Socket>()
/** What the server met since it was last asked, by the client's port. */
let heard: { from: number; accepted: number; text: string }[] = []

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

function open(request: Extract<PeerRequest, { do: 'open' }>): Promise<unknown> {
  const { name, address, port, from, seconds = LIMIT_SECONDS } = request
  const socket = connect({ host: address, port, localPort: from, noDelay: true, allowHalfOpen: true })
  sockets.set(name, socket)
  return settled(socket, seconds, (done) => socket.once('connect', () => done({ opened: true })))
}

function say(name: string, text: string, seconds = LIMIT_SECONDS): Promise<unknown> {
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
function settled(socket: Socket, seconds: number, start: (done: (value: unknown) => void) => void): Promise<unknown> {
  return new Promise((done) => {
    const timer = setTimeout(() => finish({ error: 'timeout' }), seconds * 1_000)
    const failed = (error: NodeJS.ErrnoException) => finish({ error: error.code })
    const closed = () => finish({ error: 'closed' })
    function finish(value: unknown): void {
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
      const last = heard.filter(({ from }) => request.from === undefined || from === request.from)
      heard = []
      return {
        accepted: last.reduce((sum, one) => sum + one.accepted, 0),
        text: last.map(({ text }) => text).join(''),
      }
    }
    case 'end accepted':
      for (const socket of accepted) socket.end()
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

createInterface({ input: process.stdin })
  .on('line', async (line) => print(await obey(JSON.parse(line))))
  .on('close', () => process.exit(0))
print('ready')
