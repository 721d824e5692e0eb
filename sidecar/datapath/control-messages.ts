/** What the control plane tells the worker, applied to the gate. */
import { parseAddress } from '../../policy/address.ts'
import { compile } from '../../policy/compile.ts'
import type { Peer } from '../../policy/types.ts'
import { addPair, createOwnIdentity } from '../handshake/keys.ts'
import { witHeader } from './first-contact.ts'
import { applySettings, createGatePolicy, type Gate, setOwnIdentity } from './gate.ts'
import type { ToWorker, VerifiedPeer } from './messages.ts'
import type { KnownPeer } from './peers.ts'

/**
 * Applies a message and returns the key of the need that it answers (held packets with it are judged again), or
 * undefined.
 */
export function applyMessage(
  gate: Gate,
  message: Exclude<ToWorker, { type: 'barrier' | 'denials' | 'opened' }>,
): string | undefined {
  switch (message.type) {
    case 'settings':
      applySettings(gate, message.settings)
      return undefined
    case 'own':
      setOwnIdentity(
        gate,
        createOwnIdentity({
          ...message,
          witSection: Buffer.from(message.witSection),
          witHash: Buffer.from(message.witHash),
        }),
        gate.nowMilliseconds,
      )
      forgetExpiredPeers(gate)
      return undefined
    case 'policies':
      gate.policy = createGatePolicy(compile(message.policies, message.subject))
      return undefined
    case 'ready':
      gate.ready = message.ready
      return message.ready ? 'ready' : undefined
    case 'verified': {
      gate.verifying.delete(message.key)
      const section = Buffer.from(message.section)
      if (typeof message.result === 'string') gate.peers.refuse(section, message.result, gate.nowMilliseconds)
      else gate.peers.add(createKnownPeer(gate, section, message.result))
      return message.key
    }
    case 'row':
      for (const peer of gate.peers.findByIndex(message.index)) peer.indexByPort.set(message.port, message.row)
      return message.key
    case 'resolved':
      gate.directory.set(message.address, message.entry)
      return `address ${message.address}`
    case 'forget-address':
      gate.directory.delete(message.address)
      return undefined
    case 'void':
      for (const peer of gate.peers.findByUid(message.uid)) {
        if (peer.issuedAt <= message.issuedBefore) peer.refused = 'wit-void'
      }
      return undefined
    case 'relabel':
      for (const peer of gate.peers.findByUid(message.uid)) {
        if (peer.issuedAt > message.issuedBefore) continue
        const { identity, index } = message
        gate.peers.add({ ...peer, identity, index, indexByPort: new Map(), asPeer: peersOf(identity) })
      }
      return undefined
    case 'bundle':
      gate.trustedHeaders = new Set(message.kids.map(witHeader))
      gate.peers.clearRefusals()
      gate.peers.retain((peer) => message.kids.includes(peer.kid))
      return undefined
  }
}

/** Peers renew as often as this Pod does: by its own renewals, WITs that nobody shows any more make room. */
function forgetExpiredPeers(gate: Gate): void {
  const { skewSeconds } = gate.settings
  gate.peers.retain(({ expiresAt }) => (expiresAt + skewSeconds) * 1000 > gate.nowMilliseconds)
}

function createKnownPeer(gate: Gate, section: Buffer, { shared, ...verified }: VerifiedPeer): KnownPeer {
  const peer: KnownPeer = {
    ...verified,
    section,
    witHash: Buffer.from(verified.witHash),
    addresses: verified.identity.addresses.flatMap((address) => parseAddress(address) ?? []),
    indexByPort: new Map(),
    pairs: new Map(),
    refused: '',
    asPeer: peersOf(verified.identity),
  }
  const own = [gate.own, gate.previous].find((one) => one !== undefined && one.generation === shared?.generation)
  if (own && shared) addPair(own, peer, shared.secret)
  return peer
}

function peersOf(identity: VerifiedPeer['identity']): KnownPeer['asPeer'] {
  const peers: { 4?: Peer; 6?: Peer } = {}
  for (const address of identity.addresses) {
    peers[address.includes(':') ? 6 : 4] = { kind: 'identified', pod: identity, address }
  }
  return peers
}
