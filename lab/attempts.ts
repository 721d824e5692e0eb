import { createSocket } from 'node:dgram'
import { get } from 'node:http'
import { connect, isIPv6, type Socket } from 'node:net'
import type { Outcome, Reached, Target } from './agent-protocol.ts'

/** A server that accepts and says nothing for so long counts as reached but silent. */
const SILENCE_MS = 400
const DATAGRAM_REPEAT_MS = 250

const microsecondsSince = (start: bigint) => Number((process.hrtime.bigint() - start) / 1000n)

function outcomeOf(error: NodeJS.ErrnoException): Outcome {
  return error.code === 'ECONNREFUSED' || error.code === 'ECONNRESET' ? 'refused' : 'unreachable'
}

/** Connects, or asks by datagram, once; never throws. */
export function reach(target: Target, timeoutMs: number): Promise<Reached> {
  return target.protocol === 'TCP' ? reachTcp(target, timeoutMs) : reachUdp(target, timeoutMs)
}

function reachTcp({ address, port }: Target, timeoutMs: number): Promise<Reached> {
  return new Promise((resolve) => {
    const start = process.hrtime.bigint()
    const socket = connect({ host: address, port, noDelay: true })
    let connectedMicroseconds: number | undefined
    const finish = (outcome: Outcome, more: { error?: string; answer?: string } = {}) => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ outcome, ...more, microseconds: connectedMicroseconds ?? microsecondsSince(start) })
    }
    let timer = setTimeout(() => finish('timeout'), timeoutMs)
    socket.once('connect', () => {
      connectedMicroseconds = microsecondsSince(start)
      clearTimeout(timer)
      timer = setTimeout(() => finish('silent'), SILENCE_MS)
    })
    socket.once('data', (chunk) => finish('answered', { answer: firstLine(chunk) }))
    socket.once('end', () => finish('silent'))
    socket.on('error', (error: NodeJS.ErrnoException) =>
      finish(outcomeOf(error), { error: error.code ?? error.message }),
    )
  })
}

function reachUdp({ address, port }: Target, timeoutMs: number): Promise<Reached> {
  return new Promise((resolve) => {
    const start = process.hrtime.bigint()
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    const finish = (outcome: Outcome, more: { error?: string; answer?: string } = {}) => {
      clearTimeout(timer)
      clearInterval(repeat)
      socket.removeAllListeners('message')
      socket.close()
      resolve({ outcome, ...more, microseconds: microsecondsSince(start) })
    }
    const timer = setTimeout(() => finish('timeout'), timeoutMs)
    const ask = () => socket.send('?\n', () => undefined)
    const repeat = setInterval(ask, DATAGRAM_REPEAT_MS)
    let isFinished = false
    socket.on('message', (message) => finish('answered', { answer: firstLine(message) }))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (isFinished) return
      isFinished = true
      finish(outcomeOf(error), { error: error.code ?? error.message })
    })
    socket.once('connect', ask)
    // Connected, so that the kernel tells of ICMP errors.
    socket.connect(port, address)
  })
}

/** Sends `count` datagrams at once, as a resolver asks for A and AAAA; resolves with how many answers came in time. */
export function burst({ address, port }: Target, count: number, timeoutMs: number): Promise<number> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4')
    let answers = 0
    const finish = () => {
      clearTimeout(timer)
      socket.close()
      resolve(answers)
    }
    const timer = setTimeout(finish, timeoutMs)
    socket.on('message', () => {
      if (++answers === count) finish()
    })
    socket.on('error', () => undefined) // an ICMP error: no answer
    socket.once('connect', () => {
      for (let sent = 0; sent < count; sent++) socket.send('?\n', () => undefined)
    })
    socket.connect(port, address)
  })
}

function firstLine(bytes: string | Buffer): string {
  return bytes.slice(0, 256).toString().split('\n', 1)[0] ?? ''
}

/**
 * Microseconds from connect() to the server's first byte: both ends have then passed the connection, the server's
 * application too. Closed by a reset, so that no port stays in TIME_WAIT.
 */
export function measureConnect({ address, port }: Target): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint()
    const socket = connect({ host: address, port })
    socket.once('data', () => {
      const microseconds = microsecondsSince(start)
      socket.once('close', () => resolve(microseconds))
      socket.resetAndDestroy()
    })
    socket.once('error', reject)
  })
}

export interface OpenConnection {
  readonly reached: Reached
  readonly ended: Promise<{ how: string; milliseconds: number }>
}

/** Opens a TCP connection and keeps it; `ended` says how it ended (`closed`, or an errno name). */
export function openConnection({ address, port }: Target): Promise<OpenConnection> {
  const start = process.hrtime.bigint()
  const socket: Socket = connect({ host: address, port })
  const ended = new Promise<{ how: string; milliseconds: number }>((resolve) => {
    const end = (how: string) => resolve({ how, milliseconds: microsecondsSince(start) / 1000 })
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message))
    socket.once('close', () => end('closed'))
  })
  return new Promise((resolve) => {
    socket.once('data', (chunk) =>
      resolve({
        reached: { outcome: 'answered', answer: firstLine(chunk), microseconds: microsecondsSince(start) },
        ended,
      }),
    )
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve({
        reached: {
          outcome: outcomeOf(error),
          error: error.code ?? error.message,
          microseconds: microsecondsSince(start),
        },
        ended,
      }),
    )
  })
}

/** Sends `bytes` to a server's sink (server.ts); returns milliseconds until the server has all. */
export function transfer({ address, port }: Target, bytes: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint()
    const socket = connect({ host: address, port })
    const block = Buffer.alloc(1 << 20)
    let left = bytes
    const send = () => {
      while (left > 0) {
        const chunk = left >= block.length ? block : block.subarray(0, left)
        left -= chunk.length
        if (!socket.write(chunk)) return
      }
    }
    socket.on('error', reject)
    socket.once('data', () => {
      socket.on('data', () => {
        resolve(microsecondsSince(start) / 1000)
        socket.destroy()
      })
      socket.write(`SINK ${bytes}\n`)
      socket.on('drain', send)
      send()
    })
  })
}

/** One HTTP GET, as a kubelet's probe makes it. */
export function httpGet(
  address: string,
  port: number,
  path: string,
  timeoutMs: number,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ host: address, port, path, timeout: timeoutMs, agent: false }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (text: string) => {
        if (body.length < 1 << 20) body += text
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }))
      response.on('error', reject)
    })
    request.on('timeout', () => request.destroy(new Error('timeout')))
    request.on('error', reject)
  })
}
