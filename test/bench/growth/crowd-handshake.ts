/** The client half of the handshake for many Pods behind one link: the product's own code, an identity an address. */
import { randomBytes } from 'node:crypto'
import { attachSynFrame, buildProof, createVerifiedSynAck, verifySynAck } from '../../../sidecar/handshake/client.ts'
import { createFrame, decodeFrame, FRAME_SYN_ACK } from '../../../sidecar/handshake/frame.ts'
import { createMacState } from '../../../sidecar/handshake/hmac.ts'
import type { OwnIdentity, PeerIdentity } from '../../../sidecar/handshake/keys.ts'
import { NF_ACCEPT, NF_DROP } from '../../../sidecar/netlink/queue.ts'
import type { RawSocket } from '../../../sidecar/netlink/raw-socket.ts'
import { FLAG_ACK, type Packet } from '../../../sidecar/packet/decode.ts'
import { readWindowScale } from '../../../sidecar/packet/options.ts'
import { stripPayload } from '../../../sidecar/packet/rewrite.ts'

interface Member {
  readonly own: OwnIdentity
  window: number
  windowScale: number
}

export interface CrowdHandshake {
  /** `address` in network order, as latin1. */
  add(address: string, own: OwnIdentity): void
  /** Decides for a SYN that leaves or a SYN-ACK that arrives: the verdict, and how much of `out` takes its place (0: none). */
  judge(bytes: Buffer, packet: Packet, out: Buffer): { verdict: number; bytes: number }
  /** Sections of WITs that SYN-ACKs showed and that nobody has verified yet. */
  takeUnknown(): Buffer[]
  addServer(section: Buffer, peer: PeerIdentity): void
}

const SKEW_SECONDS = 120
const ACCEPT = { verdict: NF_ACCEPT, bytes: 0 }
const DROP = { verdict: NF_DROP, bytes: 0 }

export function createCrowdHandshake(raw: RawSocket): CrowdHandshake {
  const members = new Map<string, Member>()
  const servers = new Map<string, PeerIdentity>()
  const unknown = new Map<string, Buffer>()
  const secret = createMacState(randomBytes(32))
  const frame = createFrame()
  const verified = createVerifiedSynAck()
  const proof = Buffer.alloc(2_048)

  const memberAt = (bytes: Buffer, at: number) => members.get(bytes.toString('latin1', at, at + 4))

  function judgeSynAck(bytes: Buffer, packet: Packet, out: Buffer): { verdict: number; bytes: number } {
    const member = memberAt(bytes, packet.destinationOffset)
    const decoded = decodeFrame(bytes, packet.payloadOffset, packet.totalBytes, frame)
    if (member === undefined || decoded !== 'ok' || frame.type !== FRAME_SYN_ACK) return DROP
    const section = bytes.toString('latin1', frame.witAt, frame.witAt + frame.witBytes)
    const peer = servers.get(section)
    if (peer === undefined) {
      // The server's kernel repeats it; by then the WIT is verified.
      unknown.set(section, Buffer.from(section, 'latin1'))
      return DROP
    }
    const view = {
      secret,
      own: member.own,
      previous: undefined,
      nowSeconds: Math.floor(Date.now() / 1000),
      skewSeconds: SKEW_SECONDS,
      isHairpin: () => false,
      isNodeAddress: () => false,
    }
    if (verifySynAck(view, bytes, packet, frame, peer, verified) !== 'ok') return DROP
    const proofBytes = buildProof(verified, member, bytes, packet, proof)
    raw.send(proof, proofBytes, proof.subarray(16, 20))
    return { verdict: NF_ACCEPT, bytes: stripPayload(bytes, packet, out) }
  }

  return {
    add: (address, own) => void members.set(address, { own, window: 0, windowScale: 0 }),
    addServer: (section, peer) => void servers.set(section.toString('latin1'), peer),
    takeUnknown() {
      const sections = [...unknown.values()]
      unknown.clear()
      return sections
    },
    judge(bytes, packet, out) {
      if ((packet.flags & FLAG_ACK) !== 0) return judgeSynAck(bytes, packet, out)
      const member = memberAt(bytes, packet.sourceOffset)
      if (member === undefined) return ACCEPT
      member.window = packet.window
      member.windowScale = readWindowScale(bytes, packet)
      return { verdict: NF_ACCEPT, bytes: attachSynFrame(member.own, secret, bytes, packet, out) }
    },
  }
}
