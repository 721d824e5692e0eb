/**
 * Reads queues 0 and 1 of this network namespace and gives verdicts from a table: TABLE, JSON, maps `in syn`,
 * `in syn-ack`, `in rst`, `in tcp`, `in other` (and `out ...`; `in syn released` where the packet came with that mark)
 * to a mark for ACCEPT, or to `drop`; default is mark 0.
 * Prints `ready`, then a JSON line per packet: [queue, kind, mark that it came with].
 * linux/netfilter/nfnetlink_queue.h; deliberately apart from the product's own netlink code.
 */
import { writeSync } from 'node:fs'
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const socket = libc.func('int socket(int, int, int)')
const bind = libc.func('int bind(int, const uint8_t *, int)')
const send = libc.func('intptr_t send(int, const uint8_t *, uintptr_t, int)')
const recv = libc.func('intptr_t recv(int, uint8_t *, uintptr_t, int)')

const NFQNL_MSG_PACKET = 0
const NFQNL_MSG_VERDICT = 1
const NFQNL_MSG_CONFIG = 2
const NFNL_SUBSYS_QUEUE = 3

const table: Record<string, number | 'drop'> = JSON.parse(process.argv[2] ?? '{}')
const fd: number = socket(16, 3, 12)
const address = Buffer.alloc(12)
address.writeUInt16LE(16, 0)
if (bind(fd, address, 12) !== 0) throw new Error('bind')

function attribute(type: number, value: Buffer): Buffer {
  const bytes = Buffer.alloc(4 + ((value.length + 3) & ~3))
  bytes.writeUInt16LE(4 + value.length, 0)
  bytes.writeUInt16LE(type, 2)
  value.copy(bytes, 4)
  return bytes
}

function request(type: number, queue: number, ...attributes: Buffer[]): void {
  const header = Buffer.alloc(20)
  const message = Buffer.concat([header, ...attributes])
  message.writeUInt32LE(message.length, 0)
  message.writeUInt16LE((NFNL_SUBSYS_QUEUE << 8) | type, 4)
  message.writeUInt16LE(1, 6)
  message.writeUInt16BE(queue, 18)
  send(fd, message, message.length, 0)
}

const number32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

function kindOf(packet: Buffer): string {
  const version = (packet[0] ?? 0) >> 4
  const headerBytes = version === 4 ? ((packet[0] ?? 0) & 15) * 4 : 40
  if (packet[version === 4 ? 9 : 6] !== 6) return 'other'
  const flags = packet[headerBytes + 13] ?? 0
  if ((flags & 4) !== 0) return 'rst'
  return (flags & 18) === 18 ? 'syn-ack' : (flags & 2) !== 0 ? 'syn' : 'tcp'
}

for (const queue of [0, 1]) {
  request(NFQNL_MSG_CONFIG, queue, attribute(1, Buffer.from([1, 0, 0, 2])))
  request(NFQNL_MSG_CONFIG, queue, attribute(2, Buffer.from([0, 0, 255, 255, 2])))
}
writeSync(1, 'ready\n')

const buffer = Buffer.alloc(1 << 17)
for (;;) {
  const received = Number(recv(fd, buffer, buffer.length, 0))
  for (let at = 0; at + 20 <= received; ) {
    const length = buffer.readUInt32LE(at)
    if (buffer.readUInt16LE(at + 4) === ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET)) judge(at, at + length)
    at += (length + 3) & ~3
  }
}

function judge(start: number, end: number): void {
  const queue = buffer.readUInt16BE(start + 18)
  let id = 0
  let direction = ''
  let mark = 0
  let kind = ''
  for (let at = start + 20; at + 4 <= end; ) {
    const length = buffer.readUInt16LE(at)
    const type = buffer.readUInt16LE(at + 2) & 0x7fff
    if (type === 1) {
      id = buffer.readUInt32BE(at + 4)
      direction = buffer[at + 10] === 1 ? 'in' : 'out'
    } else if (type === 3) mark = buffer.readUInt32BE(at + 4)
    else if (type === 10) kind = kindOf(buffer.subarray(at + 4, at + length))
    at += (length + 3) & ~3
  }
  const name = `${direction} ${kind}`
  writeSync(1, `${JSON.stringify([queue, name, mark])}\n`)
  const verdict = (mark >= 0x80000000 ? table[`${name} released`] : undefined) ?? table[name] ?? 0
  const drop = verdict === 'drop'
  const header = attribute(2, Buffer.concat([number32(drop ? 0 : 1), number32(id)]))
  request(NFQNL_MSG_VERDICT, queue, header, attribute(3, number32(drop ? 0 : verdict)))
}
