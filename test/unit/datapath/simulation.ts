/**
 * Two guarded Pods with tiny TCPs, a network that loses, doubles, reorders and delays, and an attacker who sees every
 * packet. Time goes in steps of 100 ms; everything that is chosen comes from a list of numbers.
 */
import { MARK_INDEX, MARK_PROVED, MARK_RELEASED } from '../../../api/marks.ts'
import { FRAME_PROOF, PROOF_BYTES } from '../../../sidecar/handshake/frame.ts'
import { createPacket, decodePacket } from '../../../sidecar/packet/decode.ts'
import {
  ACK,
  type Connection,
  flip,
  fromClient,
  fromServer,
  RST,
  SYN,
  SYN_ACK,
  setPolicies,
  settle,
  type TestPod,
} from './pods.ts'

const STEP_MILLISECONDS = 100
const GREETING = Buffer.from('hello')
const FORGERY = Buffer.from('forged')

/** One end's conntrack entry and TCP, for the one connection that is simulated. */
interface End {
  readonly pod: TestPod
  mark: number
  state: 'closed' | 'syn-sent' | 'listen' | 'syn-received' | 'established'
  timer: number
  sent: number
  /** Data that the application read. */
  received: string
}

export interface Simulation {
  readonly client: End
  readonly server: End
  /** What broke a rule; empty in every run. */
  readonly violations: string[]
}

interface InFlight {
  readonly to: 'client' | 'server'
  readonly bytes: Buffer
  readonly forged: boolean
  /** Lost where its connection is released by then. */
  readonly early: boolean
  at: number
}

export interface Choices {
  /** 0 to 1, one after the other, from the start again at the end. */
  readonly numbers: readonly number[]
  readonly loss: number
  readonly duplication: number
  readonly attack: number
  /** Steps after which the network is fair and the attacker silent. */
  readonly hostileSteps: number
  /** From this step on the policies of this end allow nobody. */
  readonly denial?: { readonly end: 'client' | 'server'; readonly step: number }
}

const NOBODY = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress, Egress], ingress: [], egress: [] }
`

/**
 * Runs the connection until both ends are established and the data arrived, or the steps are used up. `earlier` is what
 * the attacker recorded of an earlier connection on the tuple.
 */
export async function simulate(
  c: Connection,
  mallory: TestPod,
  choices: Choices,
  earlier: readonly Buffer[] = [],
  steps = 900,
): Promise<Simulation> {
  const client: End = { pod: c.client, mark: 0, state: 'syn-sent', timer: 0, sent: 0, received: '' }
  const server: End = { pod: c.server, mark: 0, state: 'listen', timer: 0, sent: 0, received: '' }
  const violations: string[] = []
  const recorded: { to: 'client' | 'server'; bytes: Buffer }[] = earlier.map((bytes) => ({
    to: bytes.compare(c.client.address, 0, 4, 16, 20) === 0 ? 'client' : 'server',
    bytes,
  }))
  let network: InFlight[] = []
  let now = 0
  let chosen = 0
  const choose = (): number => choices.numbers[chosen++ % choices.numbers.length] ?? 0
  const hostile = (): boolean => now < choices.hostileSteps
  const denied = (end: End): boolean =>
    choices.denial !== undefined &&
    now >= choices.denial.step &&
    end === (choices.denial.end === 'client' ? client : server)
  /** Proof frames that the client's sidecar sent, and whether one of them has come to the server. */
  const proofs: Buffer[] = []
  let proofArrived = false
  /** Frames of the server's SYN-ACKs; from the first one on its number is known on the wire. */
  const answers: Buffer[] = []

  function put(to: 'client' | 'server', bytes: Buffer): void {
    recorded.push({ to, bytes })
    if (to === 'client' && decoded(bytes).flags === SYN_ACK) answers.push(bytes.subarray(40))
    if (hostile() && choose() < choices.loss) return
    const copies = hostile() && choose() < choices.duplication ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      network.push({
        to,
        bytes,
        forged: false,
        early: false,
        at: now + 1 + (hostile() ? Math.floor(choose() * 12) : 0),
      })
    }
  }

  /** What the kernel of an end sends; the gate may change it. */
  async function send(end: End, bytes: Buffer): Promise<void> {
    const packet = decoded(bytes)
    // SYN and SYN-ACK of the own kernel clear the mark and are queued; the rest is where the mark is not released.
    if ((packet.flags & SYN) !== 0) end.mark = 0
    else if ((end.mark & MARK_PROVED) !== 0 && packet.flags === ACK && packet.payloadBytes === 0) {
      // The rules drop what the proof stood for.
      end.mark = (end.mark & ~MARK_PROVED) >>> 0
      return
    } else if (end.mark !== 0 || (packet.flags & RST) !== 0) return put(other(end), bytes)
    const verdict = await settle(end.pod, 'out', bytes, end.mark)
    if (verdict.reply) put(other(end), verdict.reply)
    if (verdict.action === 'pass' || verdict.action === 'release') put(other(end), verdict.packet)
    if (verdict.action === 'release') violations.push('released by a packet of its own kernel')
  }

  const other = (end: End): 'client' | 'server' => (end === client ? 'server' : 'client')

  async function arrive(end: End, { bytes, forged, early }: InFlight): Promise<void> {
    if (early && end.mark !== 0) return
    const packet = decoded(bytes)
    const syn = (packet.flags & SYN) !== 0
    if (end.mark !== 0 && !syn) return receive(end, bytes, forged)
    const before = end.mark
    if (end === server && proofs.some((proof) => proof.equals(bytes.subarray(40)))) proofArrived = true
    const verdict = await settle(end.pod, 'in', bytes, before)
    // A forged answer to a SYN has its numbers right: whoever knows them could as well send the reset that it meets.
    if (forged && end.state === 'syn-sent' && (decoded(verdict.packet).flags & RST) !== 0) return
    if (verdict.reply) put(other(end), verdict.reply)
    if (end === client && verdict.reply && isProof(verdict.reply)) proofs.push(verdict.reply.subarray(40))
    if (verdict.action === 'refuse') {
      // Before the honest SYN is here, whoever knows its number could as well send the reset.
      if (!(forged && end.state === 'listen')) put(other(end), resetOf(end, bytes))
      return
    }
    if (verdict.action === 'release') {
      end.mark = (MARK_RELEASED | verdict.mark) >>> 0
      const index = end.pod.gate.peers.findByUid((end === client ? c.server : c.client).identity.uid)[0]?.index
      if ((end.mark & MARK_INDEX) !== index) violations.push(`${other(end)} was taken for another`)
      if (end === client && !answers.some((frame) => frame.equals(bytes.subarray(40)))) {
        violations.push('the client released by what the server’s sidecar never said')
      }
      if (end === server && !proofArrived) violations.push('the server released without the client’s proof')
      if (denied(end)) violations.push(`the ${end === client ? 'client' : 'server'} released what its policies deny`)
      if (end === client && choices.denial?.end === 'server' && choices.denial.step === 0) {
        violations.push('the client released though the server’s policies never allowed it')
      }
    }
    if (verdict.action === 'pass' || verdict.action === 'release') receive(end, verdict.packet, forged)
  }

  function receive(end: End, bytes: Buffer, forged: boolean): void {
    const packet = decoded(bytes)
    const syn = (packet.flags & SYN) !== 0
    if (end === server && !syn && (packet.flags & RST) === 0 && end.mark === 0) {
      violations.push('the server’s TCP got something but a SYN before the release')
    }
    const pushes: Buffer[] = []
    if ((packet.flags & RST) !== 0) {
      const expected = end === client ? c.serverIsn + 1 : c.clientIsn + 1
      const acknowledged = end.state === 'syn-sent' && packet.acknowledgement === (c.clientIsn + 1) >>> 0
      if (!acknowledged && packet.sequence !== expected >>> 0) return
      if (end.state === 'syn-sent' && !acknowledged) return
      if (choices.denial === undefined || now < choices.denial.step)
        violations.push(`${end === client ? 'client' : 'server'} was reset${forged ? ' by a forged packet' : ''}`)
      end.state = 'closed'
      return
    }
    if (end === server) {
      if (syn && packet.sequence === c.clientIsn && end.state !== 'established') {
        end.state = 'syn-received'
        end.timer = 0
      } else if (packet.acknowledgement === (c.serverIsn + 1) >>> 0 && end.state !== 'listen') {
        end.state = 'established'
        const data = bytes.subarray(packet.payloadOffset).toString('latin1')
        if (data !== '' && packet.sequence === (c.clientIsn + 1) >>> 0) end.received = data
      }
    } else if (packet.acknowledgement === (c.clientIsn + 1) >>> 0 && syn) {
      if (end.state === 'syn-sent') end.timer = 0
      end.state = 'established'
      pushes.push(fromClient(c, ACK))
    }
    for (const push of pushes) outbox.push({ end, bytes: push })
  }

  const outbox: { end: End; bytes: Buffer }[] = []

  async function timers(): Promise<void> {
    if (client.state === 'syn-sent' && now >= client.timer) {
      client.timer = now + 10 * 2 ** Math.min(client.sent++, 4)
      await send(client, fromClient(c, SYN))
    } else if (client.state === 'established' && server.received === '' && now >= client.timer) {
      client.timer = now + 10
      await send(client, fromClient(c, ACK, { payload: GREETING }))
    }
    if (server.state === 'syn-received' && now >= server.timer) {
      server.timer = now + 10
      await send(server, fromServer(c, SYN_ACK))
    }
  }

  /** Puts in what was recorded, as it is, moved, damaged or renumbered, data, or something with Mallory's own WIT. */
  function attack(): void {
    const pick = recorded[Math.floor(choose() * recorded.length)]
    if (!pick) return
    const bytes = Buffer.from(pick.bytes)
    const kind = Math.floor(choose() * 9)
    let to = pick.to
    if (kind === 1) bytes.writeUInt32BE(Math.floor(choose() * 0xffff_ffff), 24)
    // What a released connection carries is no longer the sidecars' to protect: frames alone are damaged.
    if (kind === 2 && bytes.length > 100) flip(bytes, 40 + Math.floor(choose() * (bytes.length - 40))).copy(bytes)
    if (kind === 3 && bytes.length > 40) return inject(to, bytes.subarray(0, 40))
    if (kind === 4) to = to === 'client' ? 'server' : 'client'
    if (kind === 5) bytes.writeUInt32BE(Math.floor(choose() * 0xffff_ffff), 28)
    // Who does not know the server's number yet has to guess.
    if (kind >= 7 && answers.length === 0) return
    if (kind === 7) return renumber(to, bytes)
    // On a released connection these would be TCP's own to judge: whoever sees its numbers can always write into it.
    if (kind === 8) return inject('server', fromClient(c, ACK, { payload: FORGERY }), true)
    if (kind === 6 && to === 'server') mallory.section.copy(bytes, Math.min(bytes.length, 64))
    inject(to, bytes)
  }

  /** A recorded frame under the numbers of the connection under way. */
  function renumber(to: 'client' | 'server', bytes: Buffer): void {
    if (bytes.length <= 46) return
    const payload = Buffer.from(bytes.subarray(40))
    const type = payload.readUInt8(5)
    if (to === 'client') return inject(to, fromServer(c, SYN_ACK, { payload }))
    inject(
      to,
      type === FRAME_PROOF
        ? fromClient(c, ACK, { payload, sequence: (c.clientIsn + 1 - PROOF_BYTES) >>> 0 })
        : fromClient(c, SYN, { payload }),
    )
  }

  function inject(to: 'client' | 'server', bytes: Buffer, early = false): void {
    const rebuilt = Buffer.from(bytes)
    rebuilt.writeUInt16BE(rebuilt.length, 2)
    network.push({ to, bytes: rebuilt, forged: true, early, at: now + 1 + Math.floor(choose() * 6) })
  }

  for (; now < steps && server.received === ''; now++) {
    for (const end of [client, server]) end.pod.gate.nowMilliseconds += STEP_MILLISECONDS
    if (choices.denial?.step === now) {
      const { gate, identity } = choices.denial.end === 'client' ? c.client : c.server
      setPolicies(gate, identity, NOBODY)
    }
    await timers()
    if (hostile() && choose() < choices.attack) attack()
    const due = network.filter(({ at }) => at <= now)
    network = network.filter(({ at }) => at > now)
    for (const one of due) {
      if (isAnswerable(one.bytes)) await arrive(one.to === 'client' ? client : server, one)
    }
    for (const { end, bytes } of outbox.splice(0)) await send(end, bytes)
  }
  return { client, server, violations }
}

function decoded(bytes: Buffer) {
  const packet = createPacket()
  decodePacket(bytes, packet)
  return packet
}

/** An attacker's reset and a damaged header prove nothing of the gate: what a kernel alone judges is left out. */
function isAnswerable(bytes: Buffer): boolean {
  return decodePacket(bytes, createPacket()) === 'ok'
}

function isProof(bytes: Buffer): boolean {
  return bytes.length === 128 && bytes.readUInt8(45) === 3
}

function resetOf(_end: End, bytes: Buffer): Buffer {
  const packet = decoded(bytes)
  const reset = Buffer.from(bytes.subarray(0, 40))
  bytes.copy(reset, 12, 16, 20)
  bytes.copy(reset, 16, 12, 16)
  reset.writeUInt16BE(40, 2)
  reset.writeUInt16BE(packet.destinationPort, 20)
  reset.writeUInt16BE(packet.sourcePort, 22)
  reset.writeUInt8(0x50, 32)
  const toSyn = (packet.flags & SYN) !== 0
  reset.writeUInt32BE(toSyn ? 0 : packet.acknowledgement, 24)
  reset.writeUInt32BE(toSyn ? (packet.sequence + 1) >>> 0 : 0, 28)
  reset.writeUInt8(toSyn ? RST | ACK : RST, 33)
  return reset
}
