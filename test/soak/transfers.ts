/**
 * Transfers that run as long as they are left to, and notice a byte that is lost, repeated or altered.
 *
 *   transfers.ts server PORT               echoes, half-closed connections to their end
 *   transfers.ts client PORT ADDRESS...    one transfer to each address. On its standard input `report` prints a
 *                                          TransferReport; `finish` ends the sending, waits for the rest and prints it
 *
 * Both print "ready" once they are.
 */
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

export interface TransferReport {
  /** Transfers that run, or ended as they should: everything came back, then the end. */
  readonly whole: number
  /** Transfers that ended by themselves or were reset. */
  readonly broken: number
  readonly sentBytes: number
  readonly echoedBytes: number
  readonly wrongBytes: number
}

const CHUNK_BYTES = 4_096
const INTERVAL_MILLISECONDS = 50
/** What is under way at most: a transfer whose peer stops reading must not fill the memory. */
const WINDOW_BYTES = 256 * CHUNK_BYTES
/** A prime, so that no chunk repeats the one before it. */
const PATTERN = Buffer.from(Array.from({ length: 65_521 }, (_, index) => (index * 2_654_435_761) >>> 24))
const DOUBLED = Buffer.concat([PATTERN, PATTERN])

const print = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

/** The pattern from any position of the stream on, up to its own length. */
function patternAt(position: number, length: number): Buffer {
  const start = position % PATTERN.length
  return DOUBLED.subarray(start, start + length)
}

interface Transfer {
  sent: number
  echoed: number
  wrong: number
  isFinishing: boolean
  isBroken: boolean
  finish(): Promise<void>
}

function countWrong(data: Buffer, position: number): number {
  let wrong = 0
  for (let at = 0; at < data.length; at += PATTERN.length) {
    const part = data.subarray(at, at + PATTERN.length)
    const expected = patternAt(position + at, part.length)
    if (part.equals(expected)) continue
    for (const [index, byte] of part.entries()) if (byte !== expected[index]) wrong++
  }
  return wrong
}

async function startTransfer(address: string, port: number): Promise<Transfer> {
  const socket = connect({ host: address, port, noDelay: true, allowHalfOpen: true })
  await new Promise<void>((connected, failed) => {
    socket.once('connect', connected)
    socket.once('error', failed)
  })
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  const transfer: Transfer = {
    sent: 0,
    echoed: 0,
    wrong: 0,
    isFinishing: false,
    isBroken: false,
    async finish() {
      transfer.isFinishing = true
      clearInterval(timer)
      socket.end()
      await closed
    },
  }
  const timer = setInterval(() => {
    if (transfer.sent - transfer.echoed > WINDOW_BYTES) return
    socket.write(patternAt(transfer.sent, CHUNK_BYTES))
    transfer.sent += CHUNK_BYTES
  }, INTERVAL_MILLISECONDS)
  socket.on('data', (data: Buffer) => {
    transfer.wrong += countWrong(data, transfer.echoed)
    transfer.echoed += data.length
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    clearInterval(timer)
    transfer.isBroken = !transfer.isFinishing || transfer.echoed !== transfer.sent
  })
  return transfer
}

function reportOf(transfers: readonly Transfer[]): TransferReport {
  const sum = (pick: (transfer: Transfer) => number) => transfers.reduce((total, transfer) => total + pick(transfer), 0)
  const broken = sum(({ isBroken }) => (isBroken ? 1 : 0))
  return {
    whole: transfers.length - broken,
    broken,
    sentBytes: sum(({ sent }) => sent),
    echoedBytes: sum(({ echoed }) => echoed),
    wrongBytes: sum(({ wrong }) => wrong),
  }
}

async function runClient(port: number, addresses: readonly string[]): Promise<void> {
  const transfers = await Promise.all(addresses.map((address) => startTransfer(address, port)))
  print('ready')
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'finish') await Promise.all(transfers.map((transfer) => transfer.finish()))
    print(reportOf(transfers))
  }
}

function runServer(port: number): void {
  createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined)
    socket.pipe(socket)
  }).listen(port, () => print('ready'))
}

const [role, port, ...addresses] = process.argv.slice(2)
if (role === 'server') runServer(Number(port))
if (role === 'client') await runClient(Number(port), addresses)
