import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { NETLINK_ERRORS, NetlinkError } from '../../../sidecar/netlink/errors.ts'
import {
  type ConntrackTuple,
  decodeFlow,
  encodeFlowDump,
  encodeMarkUpdate,
  type Flow,
} from '../../../sidecar/netlink/flow.ts'
import { type DiagnosedSocket, decodeSocket, TCP_ESTABLISHED } from '../../../sidecar/netlink/inet-diag.ts'
import { encodeMessage, messageBytes, nextMessage } from '../../../sidecar/netlink/message.ts'
import { decodeDefaultRoute, decodeInterfaceAddress, decodeLink } from '../../../sidecar/netlink/route.ts'
import { RECORDED_NAMES, recorded } from './recorded.ts'

type Decode<T> = (b: Uint8Array, at: number, end: number) => T | undefined

function all<T>(datagram: Uint8Array, decode: Decode<T>): T[] {
  const found: T[] = []
  for (let at = 0; messageBytes(datagram, at, datagram.length) !== 0; at = nextMessage(datagram, at, datagram.length)) {
    const one = decode(datagram, at, datagram.length)
    if (one !== undefined) found.push(one)
  }
  return found
}

const decodeTcp: Decode<DiagnosedSocket> = (b, at, end) => decodeSocket(b, at, end, 6)
const DECODERS: readonly Decode<unknown>[] = [
  decodeFlow,
  decodeTcp,
  decodeLink,
  decodeInterfaceAddress,
  decodeDefaultRoute,
]

const V4 = new Uint8Array([127, 0, 0, 1])
const V6 = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])

function loopbackTuple(family: 4 | 6, protocol: number, sourcePort: number, destinationPort: number): ConntrackTuple {
  const address = family === 4 ? V4 : V6
  return { family, protocol, source: address, destination: address, sourcePort, destinationPort }
}

describe('recorded kernel tables', () => {
  it('of connections: IPv4 and IPv6, TCP with its state and UDP', () => {
    const flow = (family: 4 | 6, protocol: number, from: number, to: number, status: number): Flow => ({
      original: loopbackTuple(family, protocol, from, to),
      reply: loopbackTuple(family, protocol, to, from),
      mark: 0,
      status,
      tcpState: protocol === 6 ? 3 : undefined,
    })
    const flows = all(recorded('conntrack-flows'), decodeFlow)
    const ports = flows.map(({ original }) => original.sourcePort)
    expect(flows).toEqual([
      flow(6, 6, ports[0] ?? 0, 5001, 0xe),
      flow(4, 6, ports[1] ?? 0, 5000, 0xe),
      flow(6, 17, ports[2] ?? 0, 9, 8),
      flow(4, 17, ports[3] ?? 0, 9, 8),
    ])
  })

  it('of sockets: both ends of a connection, with byte counts', () => {
    for (const [name, family, port] of [
      ['diag-sockets4', 4, 5000],
      ['diag-sockets6', 6, 5001],
    ] as const) {
      const [one, two] = all(recorded(name), decodeTcp)
      expect([one?.local, one?.remote, one?.localPort, one?.remotePort]).toEqual([
        two?.remote,
        two?.local,
        two?.remotePort,
        two?.localPort,
      ])
      expect([one?.family, one?.state, one?.protocol]).toEqual([family, TCP_ESTABLISHED, 6])
      expect([one?.localPort, one?.remotePort]).toContain(port)
      expect([one?.bytesReceived, two?.bytesReceived]).toEqual([0, 0])
    }
  })

  it('of interfaces, addresses and routes', () => {
    expect(all(recorded('route-links'), decodeLink).map(({ name, loopback }) => [name, loopback])).toContainEqual([
      'lo',
      true,
    ])
    expect(all(recorded('route-addresses'), decodeInterfaceAddress)[0]).toEqual({
      family: 4,
      interfaceIndex: 1,
      address: V4,
      prefixLength: 8,
    })
    const routes = all(recorded('route-routes'), decodeDefaultRoute)
    expect(routes).toEqual([
      { family: 4, interfaceIndex: routes[0]?.interfaceIndex, gateway: new Uint8Array([192, 0, 2, 1]) },
    ])
  })
})

describe('hostile bytes', () => {
  it('cut anywhere, with lengths that agree or not, never make a decoder throw', () => {
    for (const name of RECORDED_NAMES) {
      const datagram = recorded(name)
      for (let end = 0; end <= Math.min(datagram.length, 600); end++) {
        const cut = datagram.slice(0, end)
        for (const decode of DECODERS) decode(datagram, 0, end)
        if (end >= 4) new DataView(cut.buffer).setUint32(0, end, true)
        for (const decode of DECODERS) decode(cut, 0, end)
      }
    }
  })

  it('changed anywhere, never make a decoder throw or give an address of a wrong length', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...RECORDED_NAMES),
        fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { minLength: 1, maxLength: 10 }),
        (name, changes) => {
          const bytes = recorded(name)
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
          for (const decode of DECODERS) all(bytes, decode)
          for (const { original, reply } of all(bytes, decodeFlow)) {
            for (const { family, source, destination } of [original, reply]) {
              expect([source.length, destination.length]).toEqual(family === 4 ? [4, 4] : [16, 16])
            }
          }
          for (const { family, local, remote } of all(bytes, decodeTcp)) {
            expect([local.length, remote.length]).toEqual(family === 4 ? [4, 4] : [16, 16])
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('requests', () => {
  it('for connections by mark carry mark and mask, without a filter neither', () => {
    const hex = (filter: Parameters<typeof encodeFlowDump>[0]) =>
      Buffer.from(encodeMessage({ ...encodeFlowDump(filter), sequence: 1, portId: 0 })).toString('hex')
    expect(hex(undefined)).toBe('14000000' + '0101' + '0103' + '01000000' + '00000000' + '00000000')
    expect(hex({ mark: 0x80000007, mask: 0x800fffff })).toBe(
      `24000000010101030100000000000000` + '00000000' + '0800080080000007' + '08001500800fffff',
    )
  })

  it('for a mark never set a bit outside of the mask', () => {
    const { attributes } = encodeMarkUpdate(loopbackTuple(4, 6, 1, 2), 0xffffffff, 0x40000000)
    expect(attributes.slice(1)).toEqual([
      { type: 8, data: new Uint8Array([0x40, 0, 0, 0]) },
      { type: 21, data: new Uint8Array([0x40, 0, 0, 0]) },
    ])
  })
})

describe('errors', () => {
  it('have codes with a sentence each and name the errno', () => {
    for (const sentence of Object.values(NETLINK_ERRORS)) expect(sentence).toMatch(/^[A-Z].*\.$/)
    const error = new NetlinkError('netlink-request', 'cannot bind NFQUEUE 0', -1)
    expect([error.code, error.errno, error.message]).toEqual([
      'netlink-request',
      'EPERM',
      'cannot bind NFQUEUE 0 (EPERM)',
    ])
    expect(new NetlinkError('netlink-request', 'x', -99_999).errno).toBe('errno 99999')
    expect(new NetlinkError('netlink-no-answer', 'x').errno).toBeUndefined()
  })
})
