/**
 * Why a packet was refused or dropped: one name for metrics, logs and the CLI, each with the sentence that
 * docs/errors.md has (a test compares them).
 */
export const REFUSALS = {
  policy: 'A NetworkPolicy isolates this end and none allows the peer on this port.',
  'no-wit':
    'The peer is a guarded Pod and showed no identity: its frame was removed on the path, or its sidecar is not running.',
  'peer-unknown':
    'The peer showed no identity and the issuer could not be asked who it is; only ipBlock rules could match, and none did.',
  frame: 'The frame is malformed or of a version that this sidecar does not speak.',
  'wit-invalid': 'The WIT does not verify: signature, key, header or claims.',
  'wit-expired': 'The WIT has expired; clocks that differ by more than the skew setting look the same.',
  'wit-void': 'The WIT was declared void: labels were changed or an operator revoked it.',
  'wit-address':
    'The packet does not come from an address that the WIT names. Masquerade (SNAT) between Pods looks the same.',
  relayed:
    'The server saw the connection come from an address that is not ours: a relay, or masquerade (SNAT) on the path.',
  reflected: 'Our own WIT came back although the dialled address is no Service with this Pod behind it.',
  mac: 'The proof does not fit the handshake: altered, replayed, or from another connection.',
  'not-ready': 'This Pod has no valid identity or no policies yet.',
  'identity-expired': "This Pod's own WIT has expired: the issuer could not be reached to renew it.",
  stale: 'A packet of no known connection: its handshake was never authorised here.',
  busy: 'A bound was reached: held packets, or verifications for this source.',
  fragment: 'A fragment without ports cannot be judged.',
  malformed: 'The packet cannot be decoded.',
} as const

export type Refusal = keyof typeof REFUSALS
