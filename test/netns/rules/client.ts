/** One exchange with port 7000: WHAT ADDRESS [LOCAL PORT], JSON each; prints how it went. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import koffi from 'koffi'

const [what, address, localPort] = process.argv.slice(2).map((text): unknown => JSON.parse(text))
if (typeof address !== 'string') throw new Error('no address')

const PORT = 7000
/** What is not to be answered waits so long for it; what is, longer, on a machine that is busy. */
const UNANSWERED_MILLISECONDS = 1_200
const ANSWERED_MILLISECONDS = 10_000
const BULK_BYTES = 1 << 20
const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : String(error)

/** Connects, waits until the handshake's last packet is judged, then sends 1 MiB and reads it back. */
async function tcp(pauses: readonly number[], patience = ANSWERED_MILLISECONDS): Promise<string> {
  const socket = connect({
    host: String(address),
    port: PORT,
    ...(typeof localPort === 'number' ? { localPort } : {}),
  })
  const signal = AbortSignal.timeout(patience)
  try {
    await once(socket, 'connect', { signal })
    for (const pause of pauses) {
      await sleep(pause)
      let received = 0
      socket.on('data', (data: Buffer) => {
        received += data.length
      })
      socket.write(Buffer.alloc(BULK_BYTES, 'x'))
      while (received < BULK_BYTES) await once(socket, 'data', { signal: AbortSignal.timeout(ANSWERED_MILLISECONDS) })
      socket.removeAllListeners('data')
    }
    socket.resetAndDestroy()
    return 'echoed'
  } catch (error) {
    socket.on('error', () => {})
    socket.destroy()
    return codeOf(error)
  }
}

/** Three datagrams, one after the other's echo. */
async function udp(patience = ANSWERED_MILLISECONDS): Promise<string> {
  const socket = createSocket(String(address).includes(':') ? 'udp6' : 'udp4')
  socket.connect(PORT, String(address))
  await once(socket, 'connect')
  try {
    for (let count = 0; count < 3; count++) {
      const answered = once(socket, 'message', { signal: AbortSignal.timeout(patience) })
      socket.send('x')
      await answered
    }
    return 'echoed'
  } catch (error) {
    return codeOf(error)
  } finally {
    socket.close()
  }
}

/** An ICMP or ICMPv6 echo, through a raw socket. */
function ping(): string {
  const libc = koffi.load('libc.so.6')
  const v6 = String(address).includes(':')
  const fd: number = libc.func('int socket(int, int, int)')(v6 ? 10 : 2, 3, v6 ? 58 : 1)
  const timeout = Buffer.alloc(16)
  timeout.writeBigInt64LE(2n, 0)
  libc.func('int setsockopt(int, int, int, const uint8_t *, int)')(fd, 1, 20, timeout, 16)
  const to = Buffer.alloc(28)
  to.writeUInt16LE(v6 ? 10 : 2, 0)
  if (v6) Buffer.from('fd780000000000000000000000000002', 'hex').copy(to, 8)
  else Buffer.from(String(address).split('.').map(Number)).copy(to, 4)
  const request = Buffer.from(v6 ? '8000000000010001' : '0800f7fd00010001', 'hex')
  const sendto = libc.func('intptr_t sendto(int, const uint8_t *, uintptr_t, int, const uint8_t *, int)')
  if (Number(sendto(fd, request, request.length, 0, to, v6 ? 28 : 16)) !== request.length) return 'not sent'
  const recv = libc.func('intptr_t recv(int, uint8_t *, uintptr_t, int)')
  const answer = Buffer.alloc(1500)
  // An ICMPv6 socket hears neighbour discovery too.
  for (let count = 0; count < 10; count++) {
    if (Number(recv(fd, answer, answer.length, 0)) < 0) return 'no answer'
    if (v6 ? answer[0] === 129 : answer[20] === 0) return 'echoed'
  }
  return 'no answer'
}

/** One raw TCP packet with these flags, its socket marked or not. */
function raw(flags: number, mark: number): string {
  const libc = koffi.load('libc.so.6')
  const fd: number = libc.func('int socket(int, int, int)')(2, 3, 255)
  const value = Buffer.alloc(4)
  value.writeUInt32LE(mark)
  if (libc.func('int setsockopt(int, int, int, const uint8_t *, int)')(fd, 1, 36, value, 4) !== 0) return 'setsockopt'
  const packet = Buffer.alloc(40)
  packet[0] = 0x45
  packet[8] = 64
  packet[9] = 6
  const own = Buffer.from([10, 78, 0, 1])
  const peer = Buffer.from(String(address).split('.').map(Number))
  own.copy(packet, 12)
  peer.copy(packet, 16)
  packet.writeUInt16BE(typeof localPort === 'number' ? localPort : 9000, 20)
  packet.writeUInt16BE(PORT, 22)
  packet.writeUInt32BE(1, 24)
  packet.writeUInt32BE(1, 28)
  packet[32] = 0x50
  packet[33] = flags
  packet.writeUInt16BE(512, 34)
  let sum = 6 + 20
  for (let at = 12; at < 40; at += 2) sum += packet.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  packet.writeUInt16BE(~sum & 0xffff, 36)
  const to = Buffer.alloc(16)
  to.writeUInt16LE(2, 0)
  peer.copy(to, 4)
  const sendto = libc.func('intptr_t sendto(int, const uint8_t *, uintptr_t, int, const uint8_t *, int)')
  return Number(sendto(fd, packet, packet.length, 0, to, 16)) === packet.length ? 'sent' : 'not sent'
}

async function run(): Promise<string> {
  if (what === 'tcp') return tcp([300])
  if (what === 'tcp-twice') return tcp([300, 600])
  if (what === 'tcp-unanswered') return tcp([], UNANSWERED_MILLISECONDS)
  if (what === 'udp') return udp()
  if (what === 'udp-unanswered') return udp(UNANSWERED_MILLISECONDS)
  if (what === 'ping') return ping()
  if (Array.isArray(what)) return raw(Number(what[0]), Number(what[1]))
  throw new Error('nothing to do')
}

console.log(JSON.stringify(await run()))
process.exit(0)
