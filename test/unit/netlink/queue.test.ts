import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { readU32, readU32BE } from '../../../sidecar/netlink/bytes.ts'
import { decodeMessage, messageBytes, nextMessage } from '../../../sidecar/netlink/message.ts'
import {
  createQueuedPacket,
  decodeQueued,
  encodeUnbind,
  encodeVerdict,
  encodeWakeup,
  isWakeup,
  NF_ACCEPT,
  NF_DROP,
  NF_INET_LOCAL_IN,
  NFQA_MARK,
  NFQA_PAYLOAD,
  NFQA_VERDICT_HDR,
  type QueuedPacket,
  VERDICT_SEQUENCE,
  verdictBytes,
} from '../../../sidecar/netlink/queue.ts'
import { recorded } from './recorded.ts'

const u32 = fc.integer({ min: 0, max: 0xffffffff })
const u16 = fc.integer({ min: 0, max: 0xffff })

describe('a queued packet', () => {
  it.each([
    ['queue-packet4', 0x0800, 1, 7, 41],
    ['queue-packet6', 0x86dd, 2, 0, 51],
  ])('of a kernel, %s, copied to 40 bytes', (name, hardwareProtocol, id, mark, originalBytes) => {
    const bytes = recorded(name)
    const packet = createQueuedPacket()
    expect(decodeQueued(bytes, 0, bytes.length, packet)).toBe('ok')
    const expected: QueuedPacket = {
      queue: 0,
      id,
      hook: NF_INET_LOCAL_IN,
      mark,
      hardwareProtocol,
      payloadOffset: bytes.length - 40,
      payloadBytes: 40,
      capturedFully: false,
      originalBytes,
      inInterface: 1,
      outInterface: 0,
    }
    expect(packet).toEqual(expected)
    expect((bytes[packet.payloadOffset] ?? 0) >> 4).toBe(hardwareProtocol === 0x0800 ? 4 : 6)
  })

  it('is decoded wherever it lies, and leaves nothing of the packet before', () => {
    const one = recorded('queue-packet4')
    const buffer = new Uint8Array(one.length + 64)
    buffer.set(one, 64)
    const packet = createQueuedPacket()
    Object.assign(packet, { mark: 9, outInterface: 9, id: 9, queue: 9 })
    expect(decodeQueued(buffer, 64, buffer.length, packet)).toBe('ok')
    const fresh = createQueuedPacket()
    decodeQueued(one, 0, one.length, fresh)
    expect(packet).toEqual({ ...fresh, payloadOffset: fresh.payloadOffset + 64 })
  })

  it('cut anywhere is truncated', () => {
    const bytes = recorded('queue-packet4')
    for (let end = 0; end < bytes.length; end++) {
      expect(decodeQueued(bytes, 0, end, createQueuedPacket())).toBe('truncated')
    }
    // The same with nlmsg_len that agrees with the cut: the attributes break off, or are missing.
    for (let end = 16; end < bytes.length - 4; end++) {
      const cut = bytes.slice(0, end)
      new DataView(cut.buffer).setUint32(0, end, true)
      expect(['truncated', 'malformed']).toContain(decodeQueued(cut, 0, end, createQueuedPacket()))
    }
  })

  it('without header or payload is malformed, and an answer is no packet', () => {
    const bytes = recorded('queue-packet4')
    for (const type of [1, NFQA_PAYLOAD]) {
      const changed = bytes.slice()
      for (let at = 20; at < changed.length; at += ((changed[at] ?? 4) + 3) & ~3) {
        if (changed[at + 2] === type) changed[at + 2] = 99
      }
      expect(decodeQueued(changed, 0, changed.length, createQueuedPacket())).toBe('malformed')
    }
    const answer = recorded('queue-answer')
    expect(decodeQueued(answer, 0, answer.length, createQueuedPacket())).toBe('not-packet')
  })

  it('of any bytes is judged without a throw, and its payload lies within them', () => {
    const base = recorded('queue-packet4')
    const changes = fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 8 })
    fc.assert(
      fc.property(changes, fc.uint8Array({ maxLength: 120 }), (changed, noise) => {
        const bytes = base.slice()
        for (const [at, value] of changed) bytes[at] = value
        for (const candidate of [bytes, noise]) {
          const packet = createQueuedPacket()
          if (decodeQueued(candidate, 0, candidate.length, packet) !== 'ok') continue
          expect(packet.payloadOffset + packet.payloadBytes).toBeLessThanOrEqual(candidate.length)
          expect(packet.originalBytes).toBeGreaterThanOrEqual(packet.payloadBytes)
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe('a verdict', () => {
  const mark = fc.option(u32, { nil: undefined })
  const verdict = fc.record({
    queue: u16,
    id: u32,
    verdict: fc.constantFrom(NF_DROP, NF_ACCEPT),
    mark,
    packet: fc.option(fc.uint8Array({ maxLength: 100 }), { nil: undefined }),
  })

  it('says what it was given, many in one buffer, and leaves the rest of the buffer alone', () => {
    fc.assert(
      fc.property(fc.array(verdict, { minLength: 1, maxLength: 6 }), (verdicts) => {
        const out = new Uint8Array(2048).fill(0xee)
        let end = 0
        for (const v of verdicts) {
          const bytes = encodeVerdict(out, end, v.queue, v.id, v.verdict, v.mark, v.packet)
          expect(bytes).toBeLessThanOrEqual(verdictBytes(v.packet?.length ?? 0))
          end += bytes
        }
        expect(out.subarray(end).every((byte) => byte === 0xee)).toBe(true)
        let at = 0
        for (const v of verdicts) {
          const decoded = decodeMessage(out, at, end, 4)
          const data = (type: number) => decoded?.attributes.find((a) => a.type === type)?.data
          const header = data(NFQA_VERDICT_HDR)
          const markBytes = data(NFQA_MARK)
          expect({
            type: decoded?.type,
            flags: decoded?.flags,
            sequence: decoded?.sequence,
            queue: (decoded?.body[2] ?? 0) * 256 + (decoded?.body[3] ?? 0),
            verdict: header instanceof Uint8Array ? readU32BE(header, 0) : undefined,
            id: header instanceof Uint8Array ? readU32BE(header, 4) : undefined,
            mark: markBytes instanceof Uint8Array ? readU32BE(markBytes, 0) : undefined,
            packet: data(NFQA_PAYLOAD),
          }).toEqual({ type: 0x301, flags: 1, sequence: (v.id | VERDICT_SEQUENCE) >>> 0, ...v })
          at = nextMessage(out, at, end)
        }
        expect(at).toBe(end)
      }),
      { numRuns: 150 },
    )
  })

  it('takes the first bytes of a longer buffer, of a Buffer too', () => {
    const out = new Uint8Array(64)
    const bytes = encodeVerdict(out, 0, 0, 1, NF_ACCEPT, undefined, Buffer.from('abcdef'), 3)
    expect([bytes, Buffer.from(out.subarray(32, 40)).toString('hex')]).toEqual([40, '07000a0061626300'])
  })

  it('that does not fit is not written', () => {
    const out = new Uint8Array(39)
    expect(encodeVerdict(out, 0, 0, 1, NF_ACCEPT, 5)).toBe(0)
    expect(encodeVerdict(out, 8, 0, 1, NF_ACCEPT, undefined)).toBe(0)
    expect(encodeVerdict(new Uint8Array(1 << 17), 0, 0, 1, NF_ACCEPT, 5, new Uint8Array(0xffff))).toBe(0)
    expect(encodeVerdict(new Uint8Array(64), 0, 0, 1, NF_ACCEPT, 5, new Uint8Array(3), 4)).toBe(0)
    expect(out).toEqual(new Uint8Array(39))
    expect(encodeVerdict(new Uint8Array(40), 0, 0, 1, NF_ACCEPT, 5)).toBe(40)
  })
})

describe('a wake-up', () => {
  it('is known by its answer alone', () => {
    const request = encodeWakeup()
    const answer = new Uint8Array(36)
    answer.set([36, 0, 0, 0, 2])
    answer.set(request.subarray(8, 12), 8)
    expect(isWakeup(answer, 36)).toBe(true)
    expect(isWakeup(answer, 35)).toBe(false)
    expect(isWakeup(request, request.length)).toBe(false)
    const other = recorded('queue-answer')
    expect(isWakeup(other, other.length)).toBe(false)
    const packet = recorded('queue-packet4')
    expect(isWakeup(packet, packet.length)).toBe(false)
  })

  it('and a configuration request ask for an acknowledgement', () => {
    const flags = [encodeWakeup(), encodeUnbind(3, 9)].map((bytes) => {
      expect(messageBytes(bytes, 0, bytes.length)).toBe(bytes.length)
      return [bytes[6], readU32(bytes, 8)]
    })
    expect(flags).toEqual([
      [5, 0x77616b65],
      [5, 9],
    ])
  })
})
