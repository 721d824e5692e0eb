import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { NetlinkError } from '../../../sidecar/netlink/errors.ts'
import {
  type Attribute,
  acknowledgedErrno,
  align4,
  attributeBytes,
  attributeType,
  decodeMessage,
  encodeMessage,
  findAttribute,
  type Message,
  messageBytes,
  NLA_DATA_MAXIMUM,
  nextAttribute,
  nextMessage,
} from '../../../sidecar/netlink/message.ts'
import { RECORDED_NAMES, recorded } from './recorded.ts'

const u32 = fc.integer({ min: 0, max: 0xffffffff })
const u16 = fc.integer({ min: 0, max: 0xffff })
const { attribute } = fc.letrec<{ attribute: Attribute }>((tie) => ({
  attribute: fc.record({
    type: fc.integer({ min: 0, max: 0x3fff }),
    data: fc.oneof(
      { depthSize: 'small', maxDepth: 3 },
      fc.uint8Array({ maxLength: 40 }),
      fc.array(tie('attribute'), { maxLength: 4 }),
    ),
  }),
}))
const message: fc.Arbitrary<Message> = fc.record({
  type: u16,
  flags: u16,
  sequence: u32,
  portId: u32,
  body: fc.integer({ min: 0, max: 8 }).chain((words) => fc.uint8Array({ minLength: words * 4, maxLength: words * 4 })),
  attributes: fc.array(attribute, { maxLength: 6 }),
})

/** Every message and attribute offset that the cursors visit, nested ones included, checked against the end. */
function walk(buffer: Uint8Array, end: number, bodyBytes: number): number {
  let visited = 0
  const attributes = (start: number, stop: number, depth: number): void => {
    for (let i = start; attributeBytes(buffer, i, stop) !== 0; i = nextAttribute(buffer, i, stop)) {
      const attributeEnd = i + attributeBytes(buffer, i, stop)
      expect(attributeEnd).toBeLessThanOrEqual(stop)
      visited++
      if (depth < 3) attributes(i + 4, attributeEnd, depth + 1)
    }
  }
  for (let at = 0; messageBytes(buffer, at, end) !== 0; at = nextMessage(buffer, at, end)) {
    const stop = at + messageBytes(buffer, at, end)
    expect(stop).toBeLessThanOrEqual(end)
    visited++
    attributes(at + 16 + bodyBytes, stop, 0)
  }
  return visited
}

describe('netlink messages', () => {
  it.each([
    [0, 0],
    [1, 4],
    [4, 4],
    [5, 8],
  ])('align %i to %i', (bytes, aligned) => {
    expect(align4(bytes)).toBe(aligned)
  })

  it('are the bytes of struct nlmsghdr and struct nlattr, padded to 4', () => {
    const bytes = encodeMessage({
      type: 0x0301,
      flags: 0x0005,
      sequence: 0x01020304,
      portId: 7,
      body: new Uint8Array([2, 0, 0, 9]),
      attributes: [
        { type: 1, data: new Uint8Array([0xaa]) },
        { type: 2, data: [{ type: 3, data: new Uint8Array([0xbb, 0xcc]) }] },
      ],
    })
    expect(Buffer.from(bytes).toString('hex')).toBe(
      '28000000010305000403020107000000' + '02000009' + '05000100aa000000' + '0c000280' + '06000300bbcc0000',
    )
  })

  it('decode to what was encoded, and encode again to the same bytes', () => {
    fc.assert(
      fc.property(message, (value) => {
        const bytes = encodeMessage(value)
        const decoded = decodeMessage(bytes, 0, bytes.length, value.body.length)
        expect(decoded).toEqual(value)
        expect(decoded && encodeMessage(decoded)).toEqual(bytes)
      }),
      { numRuns: 200 },
    )
  })

  it('follow one another in a datagram', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 5 }), (values) => {
        const datagram = new Uint8Array(Buffer.concat(values.map(encodeMessage)))
        const decoded: (Message | undefined)[] = []
        let at = 0
        for (const value of values) {
          decoded.push(decodeMessage(datagram, at, datagram.length, value.body.length))
          at = nextMessage(datagram, at, datagram.length)
        }
        expect(decoded).toEqual(values)
        expect(at).toBe(datagram.length)
      }),
      { numRuns: 50 },
    )
  })

  it.each(RECORDED_NAMES)('of a kernel, %s, are re-encoded without change', (name) => {
    const datagram = recorded(name)
    const bodyBytes = name.startsWith('diag') ? 72 : name.endsWith('links') ? 16 : name.endsWith('addresses') ? 8 : 4
    const bodies = name.endsWith('routes') ? 12 : name.endsWith('answer') ? 20 : bodyBytes
    for (
      let at = 0;
      messageBytes(datagram, at, datagram.length) !== 0;
      at = nextMessage(datagram, at, datagram.length)
    ) {
      const decoded = decodeMessage(datagram, at, datagram.length, bodies)
      const bytes = messageBytes(datagram, at, datagram.length)
      // The last message of a datagram may end unaligned; ours never do.
      const again = decoded === undefined ? new Uint8Array(0) : encodeMessage(decoded)
      expect(Buffer.from(again.subarray(4, bytes)).toString('hex')).toBe(
        Buffer.from(datagram.subarray(at + 4, at + bytes)).toString('hex'),
      )
    }
  })

  it('that are cut anywhere, or are no messages at all, never lead the cursors beyond their end', () => {
    for (const name of RECORDED_NAMES) {
      const datagram = recorded(name)
      for (let end = 0; end <= datagram.length; end++) walk(datagram, end, 4)
    }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), u16, (bytes, length) => {
        if (bytes.length >= 4) bytes.set([length & 63, 0, 0, 0])
        walk(bytes, bytes.length, 4)
        decodeMessage(bytes, 0, bytes.length, 4)
      }),
      { numRuns: 300 },
    )
  })

  it('and attributes whose length is below their header end the iteration', () => {
    const bytes = encodeMessage({ type: 1, flags: 0, sequence: 0, portId: 0, body: new Uint8Array(0), attributes: [] })
    for (const length of [0, 15, 17, 0xffffffff]) {
      new DataView(bytes.buffer).setUint32(0, length, true)
      expect([messageBytes(bytes, 0, 16), nextMessage(bytes, 0, 16)]).toEqual([0, 16])
    }
    for (const length of [0, 3, 5, 0xffff]) {
      const attribute = new Uint8Array([length & 0xff, length >> 8, 1, 0])
      expect([attributeBytes(attribute, 0, 4), nextAttribute(attribute, 0, 4)]).toEqual([0, 4])
    }
    expect(messageBytes(bytes, 0, 17)).toBe(0)
    expect(messageBytes(bytes, -1, 16)).toBe(0)
    expect(attributeBytes(bytes, -1, 16)).toBe(0)
  })

  it('find an attribute by its type without its flag bits', () => {
    const bytes = new Uint8Array([4, 0, 1, 0x80, 4, 0, 2, 0x40, 4, 0, 2, 0])
    expect([1, 2, 3].map((type) => findAttribute(bytes, 0, 12, type))).toEqual([0, 4, -1])
    expect(attributeType(bytes, 0)).toBe(1)
  })

  it('refuse an attribute that does not fit into its 16 bits of length', () => {
    const encode = (bytes: number) => () =>
      encodeMessage({
        type: 1,
        flags: 0,
        sequence: 0,
        portId: 0,
        body: new Uint8Array(0),
        attributes: [{ type: 10, data: new Uint8Array(bytes) }],
      })
    expect(encode(NLA_DATA_MAXIMUM)().length).toBe(16 + 0x10000)
    expect(encode(NLA_DATA_MAXIMUM + 1)).toThrow(
      new NetlinkError('netlink-argument', 'attribute 10 has 65532 bytes; at most 65531 fit'),
    )
  })

  it('tell the errno of an answer, and that another message is none', () => {
    const answer = (type: number, words: number[]) => {
      const body = new Uint8Array(new Int32Array(words).buffer)
      const bytes = encodeMessage({ type, flags: 0, sequence: 1, portId: 0, body, attributes: [] })
      return acknowledgedErrno(bytes, 0, bytes.length)
    }
    expect([answer(2, [0]), answer(2, [-2]), answer(3, [-16]), answer(3, [])]).toEqual([0, -2, -16, 0])
    expect([answer(2, []), answer(0x300, [0])]).toEqual([undefined, undefined])
  })
})
