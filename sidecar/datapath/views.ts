/** What the two halves of the handshake see of the gate. */
import type { ClientView } from '../handshake/client.ts'
import type { OwnIdentity } from '../handshake/keys.ts'
import type { ServerView } from '../handshake/server.ts'
import type { Packet } from '../packet/decode.ts'
import { findDialled, knownAddress, leadsTo } from './dialled.ts'
import { addressText, type Gate, isNodeAddress } from './gate.ts'

interface View extends ClientView, ServerView {
  gate: Gate | undefined
  secret: ClientView['secret']
  own: OwnIdentity
  previous: OwnIdentity | undefined
  nowSeconds: number
  skewSeconds: number
}

let view: View | undefined

function refresh(gate: Gate, own: OwnIdentity): View {
  view ??= {
    gate,
    secret: gate.secret,
    own,
    previous: undefined,
    nowSeconds: 0,
    skewSeconds: 0,
    isHairpin(bytes, packet) {
      return this.gate !== undefined && isHairpin(this.gate, bytes, packet)
    },
    isNodeAddress(bytes, at, addressBytes) {
      return this.gate !== undefined && isNodeAddress(this.gate, bytes, at, addressBytes)
    },
  }
  view.gate = gate
  view.secret = gate.secret
  view.own = own
  view.previous = gate.nowMilliseconds < gate.previousUntil ? gate.previous : undefined
  view.nowSeconds = gate.nowMilliseconds / 1000
  view.skewSeconds = gate.settings.skewSeconds
  return view
}

/** Valid until the next call. */
export const clientView: (gate: Gate, own: OwnIdentity) => ClientView = refresh
/** Valid until the next call. */
export const serverView: (gate: Gate, own: OwnIdentity) => ServerView = refresh

/** True where the dialled address and port lead to a Service with this very Pod behind it. */
function isHairpin(gate: Gate, bytes: Buffer, packet: Packet): boolean {
  const address = knownAddress(gate.nodeAddresses, addressText(bytes, packet.sourceOffset, packet.addressBytes))
  const dialled = findDialled(gate.directory, address, 'TCP', packet.sourcePort)
  return gate.own !== undefined && leadsTo(dialled, gate.own.uid)
}
