/**
 * Connections of which one end has closed its direction, and which stay so until they are told to speak.
 *
 *   half-closed.ts server PORT
 *   half-closed.ts client PORT ADDRESS...     two connections to each: `client-closes` and `server-closes`
 *
 * A line `speak` sends `late` on every connection whose own direction is open; `report` prints what came on each.
 */
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

interface Kept {
  readonly socket: Socket
  mode: string
  received: string
  state: string
}

const [role, port, ...addresses] = process.argv.slice(2)
const kept: Kept[] = []
const print = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

function keep(socket: Socket, mode: string): Kept {
  const one: Kept = { socket, mode, received: '', state: 'open' }
  kept.push(one)
  socket.on('error', (error: NodeJS.ErrnoException) => {
    one.state = error.code ?? 'error'
  })
  socket.on('close', () => {
    if (one.state === 'open') one.state = 'closed'
  })
  return one
}

function serve(): void {
  createServer({ allowHalfOpen: true }, (socket) => {
    const one = keep(socket, '')
    socket.on('data', (data) => {
      if (one.mode !== '') {
        one.received += data.toString()
        return
      }
      one.mode = data.toString().trim()
      socket.write('hello\n')
      if (one.mode === 'server-closes') socket.end()
    })
  }).listen(Number(port), '::', () => print('ready'))
}

async function open(address: string, mode: string): Promise<void> {
  const socket = connect({ host: address, port: Number(port), allowHalfOpen: true })
  const one = keep(socket, mode)
  await new Promise((connected, failed) => {
    socket.once('connect', connected)
    socket.once('error', failed)
  })
  socket.write(`${mode}\n`)
  await new Promise<void>((heard) => {
    socket.on('data', (data) => {
      one.received += data.toString()
      heard()
    })
  })
  if (mode === 'client-closes') socket.end()
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const speaks = role === 'server' ? 'client-closes' : 'server-closes'
  if (line === 'speak') for (const one of kept) if (one.mode === speaks) one.socket.write('late\n')
  const report = kept.map(({ socket, mode, received, state }) => ({
    mode,
    peer: socket.remoteAddress?.replace('::ffff:', '') ?? '',
    received,
    state,
  }))
  print(line === 'speak' ? 'spoken' : report)
})

if (role === 'server') serve()
else {
  for (const address of addresses) for (const mode of ['client-closes', 'server-closes']) await open(address, mode)
  print('ready')
}
