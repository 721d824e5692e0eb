/**
 * Long-lived connections that would notice a lost, repeated or altered byte.
 *
 *   streams.ts server PORT              echoes; `report` prints how many connections each client address has open
 *   streams.ts client ADDRESS PORT N    N connections that send a running number every 20 ms and check its echo;
 *                                       `report` prints {open, ended, wrong, exchanged}, `connect` tries a further one
 */
import { connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

const [role, ...parameters] = process.argv.slice(2)
const print = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

if (role === 'server') serve(Number(parameters[0]))
else await stream(String(parameters[0]), Number(parameters[1]), Number(parameters[2]))

function serve(port: number): void {
  const open = new Map<Socket, string>()
  createServer((socket) => {
    open.set(socket, socket.remoteAddress ?? '')
    socket.on('data', (data) => socket.write(data))
    socket.on('error', () => undefined)
    socket.on('close', () => open.delete(socket))
  }).listen(port, () => print('ready'))
  createInterface({ input: process.stdin }).on('line', () => {
    const counts: Record<string, number> = {}
    for (const address of open.values()) {
      const text = address.replace('::ffff:', '')
      counts[text] = (counts[text] ?? 0) + 1
    }
    print(counts)
  })
}

async function stream(address: string, port: number, count: number): Promise<void> {
  const state = { open: 0, ended: 0, wrong: 0, exchanged: 0 }
  await Promise.all(Array.from({ length: count }, () => openStream(address, port, state)))
  print('ready')
  createInterface({ input: process.stdin }).on('line', async (line) => {
    if (line === 'report') return print(state)
    const started = performance.now()
    try {
      await openStream(address, port, state)
      print({ connected: true, milliseconds: performance.now() - started })
    } catch (error) {
      print({ connected: false, error: (error as NodeJS.ErrnoException).code })
    }
  })
}

async function openStream(
  address: string,
  port: number,
  state: { open: number; ended: number; wrong: number; exchanged: number },
): Promise<void> {
  const socket = connect({ host: address, port, noDelay: true })
  await new Promise<void>((connected, failed) => {
    socket.once('connect', connected)
    socket.once('error', failed)
  })
  state.open++
  let sent = 0
  let expected = 0
  let rest = ''
  const timer = setInterval(() => socket.write(`${sent++}\n`), 20)
  // Open at both ends, not at this one alone: the first number has come back.
  const echoed = new Promise<void>((done, failed) => {
    socket.once('data', () => done())
    socket.once('close', () => failed(new Error('closed before its first echo')))
  })
  socket.on('data', (data) => {
    const lines = (rest + data.toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (Number(line) !== expected++) state.wrong++
      state.exchanged++
    }
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    clearInterval(timer)
    state.open--
    state.ended++
  })
  await echoed
}
