import { describe, expect, it } from '@jest/globals'
import { openConntrack } from '../../../sidecar/netlink/conntrack.ts'
import { NetlinkError } from '../../../sidecar/netlink/errors.ts'
import type { ConntrackTuple, Flow } from '../../../sidecar/netlink/flow.ts'
import { describeKernelContract, type KernelUnderTest } from '../../kernel/contract.ts'
import { createFakeKernel, isAccepted } from '../../kernel/fake-kernel.ts'

const LOOPBACK = new Uint8Array([127, 0, 0, 1])
const SOURCE_PORT = 40_000
const QUEUE_OF_PORT: Readonly<Record<number, number>> = { 7001: 1, 7002: 2 }

function udpPacket(port: number, payload: string): Uint8Array {
  const bytes = new Uint8Array(28 + payload.length)
  const view = new DataView(bytes.buffer)
  bytes[0] = 0x45
  view.setUint16(2, bytes.length)
  bytes[8] = 64
  bytes[9] = 17
  bytes.set(LOOPBACK, 12)
  bytes.set(LOOPBACK, 16)
  view.setUint16(20, SOURCE_PORT)
  view.setUint16(22, port)
  view.setUint16(24, 8 + payload.length)
  bytes.set(Buffer.from(payload), 28)
  return bytes
}

function flowTo(port: number): Flow {
  const ends = { family: 4, protocol: 17, source: LOOPBACK, destination: LOOPBACK } as const
  const original: ConntrackTuple = { ...ends, sourcePort: SOURCE_PORT, destinationPort: port }
  const reply: ConntrackTuple = { ...ends, sourcePort: port, destinationPort: SOURCE_PORT }
  return { original, reply, mark: 0, status: 8, tcpState: undefined }
}

/** The network around the fake kernel: what iptables rules and UDP sockets are around the real one. */
async function openFakeKernel(): Promise<KernelUnderTest> {
  const kernel = createFakeKernel()
  const delivered = new Map<number, string[]>()
  const settle = (): void => {
    for (const verdict of kernel.takeVerdicts()) {
      if (!isAccepted(verdict)) continue
      const port = new DataView(verdict.bytes.buffer, verdict.bytes.byteOffset).getUint16(22)
      delivered.set(port, [...(delivered.get(port) ?? []), Buffer.from(verdict.bytes.subarray(28)).toString()])
      const index = kernel.flows.findIndex((flow) => flow.original.destinationPort === port)
      const flow = kernel.flows[index]
      if (flow !== undefined && verdict.mark !== 0) kernel.flows[index] = { ...flow, mark: verdict.mark }
    }
  }
  return {
    sourcePort: SOURCE_PORT,
    openTransport: () => kernel.openTransport(),
    async sendDatagram(port, payload) {
      if (!kernel.flows.some((flow) => flow.original.destinationPort === port)) kernel.flows.push(flowTo(port))
      kernel.enqueue({ queue: QUEUE_OF_PORT[port] ?? 0, hook: 1, bytes: udpPacket(port, payload), inInterface: 1 })
    },
    async takeDelivered(port) {
      settle()
      const taken = delivered.get(port) ?? []
      delivered.delete(port)
      return taken
    },
    async close() {},
  }
}

describeKernelContract('the fake kernel', openFakeKernel)

describe('an interrupted listing', () => {
  it('is begun anew: entries come again, and a count starts over', () => {
    const kernel = createFakeKernel()
    kernel.flows.push(flowTo(1), flowTo(2), flowTo(3), flowTo(4))
    const conntrack = openConntrack(kernel.openTransport())
    kernel.interruptDumps(2)
    expect(conntrack.dump(undefined, () => undefined)).toBe(12)
    kernel.interruptDumps(4)
    expect(conntrack.count(undefined)).toBe(4)
  })

  it('in steps gives what it gives at once, with a step for each read', () => {
    const kernel = createFakeKernel()
    kernel.flows.push(flowTo(1), flowTo(2), flowTo(3), flowTo(4))
    const conntrack = openConntrack(kernel.openTransport())
    kernel.interruptDumps(1)
    const ports: number[] = []
    const steps = conntrack.dumpInSteps(undefined, ({ original }) => ports.push(original.destinationPort))
    const seen: number[] = []
    for (let step = steps.next(); ; step = steps.next()) {
      seen.push(ports.length)
      if (step.done !== true) continue
      expect(step.value).toBe(8)
      break
    }
    expect(ports).toEqual([1, 2, 3, 4, 1, 2, 3, 4])
    expect(seen.length).toBeGreaterThan(2)
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
  })

  it('fails after five attempts', () => {
    const kernel = createFakeKernel()
    kernel.flows.push(flowTo(1))
    kernel.interruptDumps(5)
    const conntrack = openConntrack(kernel.openTransport())
    let failure: unknown
    try {
      conntrack.count(undefined)
    } catch (error) {
      failure = error
    }
    expect(failure instanceof NetlinkError && failure.code).toBe('netlink-dump-interrupted')
    expect(conntrack.count(undefined)).toBe(1)
  })
})
