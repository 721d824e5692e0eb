/**
 * The iptables rules of a guarded Pod, as data and as text for iptables-restore. Pure.
 *
 * Every rule is written as iptables-save prints it, so that what is installed can be compared with what is read back.
 */
import {
  MARK_ALL,
  MARK_OWN,
  MARK_PROVED,
  MARK_RELEASED,
  MARK_REVOKED,
  MARK_SAVED,
  MARK_STALE,
} from '../../api/marks.ts'
import { RulesError } from './errors.ts'

export type Family = 4 | 6

export interface RulesetOptions {
  readonly family: Family
  /** NFQUEUE number for TCP. */
  readonly queueTcp: number
  /** NFQUEUE number for every protocol but TCP and ICMP. */
  readonly queueOther: number
  /** The user whose raw packets with MARK_OWN skip the queue. */
  readonly sidecarUid: number
  /**
   * What a refused peer sees: `reset` (default; a reset or an ICMP error) or `drop` (silence). The Pod's own refused
   * packets are always answered: nobody else learns of it, and its programs fail at once.
   */
  readonly refusal?: 'reset' | 'drop'
}

export interface Chain {
  readonly name: string
  /** The rules without `-A CHAIN`, in iptables-save's form. */
  readonly rules: readonly string[]
}

/** One table's part of the ruleset. `jumps`: each `from` (a built-in chain) begins with a jump to `to`. */
export interface TableRules {
  readonly table: 'filter' | 'mangle'
  readonly chains: readonly Chain[]
  readonly jumps: readonly { readonly from: 'INPUT' | 'OUTPUT' | 'FORWARD'; readonly to: string }[]
}

/** The prefix of all our chains; whatever begins with it is ours. */
export const CHAIN_PREFIX = 'SYNGUARD-'

const hex = (mark: number): string => `0x${mark.toString(16)}`
const JUDGED = MARK_RELEASED | MARK_REVOKED
const bits = (value: number, mask: number): string => `${hex(value >>> 0)}/${hex(mask >>> 0)}`

const SYN = '-p tcp -m tcp --tcp-flags SYN SYN'
const NOT_SYN = '-p tcp -m tcp ! --tcp-flags SYN SYN'
/**
 * Established traffic of released connections, first in its chain. SYNs have verdicts of their own, and resets are
 * looked at further down. The packet's own mark stays as it is: at worst a program refuses its own packets with it.
 */
const fastPath = (mask: number): string =>
  `-p tcp -m tcp --tcp-flags SYN,RST NONE -m connmark --mark ${bits(MARK_RELEASED, mask)} -j RETURN`

const TO_LOOPBACK = '-o lo -j RETURN'
const FROM_LOOPBACK = '-i lo -j RETURN'
const CLEAR_PACKET_MARK = `-j MARK --set-xmark ${bits(0, MARK_ALL)}`
const CLEAR_CONNECTION_MARK = `-j CONNMARK --set-xmark ${bits(0, MARK_SAVED)}`
const RESTORE_MARK = `-j CONNMARK --restore-mark --nfmask ${hex(MARK_SAVED)} --ctmask ${hex(MARK_SAVED)}`
const SAVE_MARK = `-j CONNMARK --save-mark --nfmask ${hex(MARK_SAVED)} --ctmask ${hex(MARK_SAVED)}`

/** A new connection's SYN is NEW; on an entry of an earlier connection, which conntrack has not let go, it is not. */
const MARK_STALE_SYN = `-p tcp -m tcp --tcp-flags SYN,ACK SYN -m conntrack --ctstate ESTABLISHED -j MARK --set-xmark ${bits(MARK_STALE, MARK_STALE)}`

/**
 * While the packet that releases a connection is on its way through the kernel, the next ones may overtake it. One that
 * so reaches a connection already closed by a reset makes the kernel answer with another, which conntrack on the path
 * would take for the tuple's next connection. conntrack keeps a connection for 10 s after a reset, others longer.
 */
const DROP_STRAY_RESET = `-p tcp -m tcp --tcp-flags RST,ACK RST -m connmark --mark ${bits(MARK_RELEASED, JUDGED)} -m conntrack --ctexpire 0:10 -j DROP`

/** The client's own answer to a SYN-ACK that our proof has answered already. IPv6's header is 20 bytes longer. */
const firstAck = (family: Family): string =>
  `-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK ACK -m connmark --mark ${bits(MARK_PROVED, MARK_PROVED)} -m length --length 0:${family === 4 ? 80 : 100}`

/** Packets of judged connections never see the queue: released ones pass, the filter table refuses revoked ones. */
const SKIP_QUEUE = [
  `${NOT_SYN} -m connmark ! --mark ${bits(0, JUDGED)} -j RETURN`,
  `! -p tcp -m connmark ! --mark ${bits(0, JUDGED)} -j RETURN`,
]
/** A packet that conntrack cannot place has no connection whose mark could be trusted. */
const DROP_INVALID = '-m conntrack --ctstate INVALID -j DROP'

/**
 * IPv6 lets any program send from an address that is not its Pod's (IP_FREEBIND). Whoever judges by addresses would take
 * the datagram for another Pod's. ICMPv6 is left out: neighbour discovery and MLD begin without an address.
 */
const dropForeignSource = (family: Family): string => `! -p ${icmp(family)} -m addrtype ! --src-type LOCAL -j DROP`

/** Without `--queue-bypass`: where no sidecar listens, packets are dropped. */
function queueRules(options: RulesetOptions): string[] {
  return [
    `-p tcp -j NFQUEUE --queue-num ${options.queueTcp}`,
    `-p ${icmp(options.family)} -j RETURN`,
    `-j NFQUEUE --queue-num ${options.queueOther}`,
  ]
}

/** ICMPv6 includes neighbour discovery and MLD: a Pod without them has no IPv6. */
const icmp = (family: Family): string => (family === 4 ? 'icmp' : 'ipv6-icmp')

function mangleChains(options: RulesetOptions): Chain[] {
  return [
    {
      name: 'SYNGUARD-IN',
      rules: [
        fastPath(JUDGED),
        FROM_LOOPBACK,
        CLEAR_PACKET_MARK,
        ...SKIP_QUEUE,
        DROP_INVALID,
        RESTORE_MARK,
        MARK_STALE_SYN,
        ...queueRules(options),
      ],
    },
    {
      name: 'SYNGUARD-OUT',
      rules: [
        fastPath(JUDGED | MARK_PROVED),
        TO_LOOPBACK,
        // Goto, not jump: what returns from there leaves our chains.
        `-m mark --mark ${bits(MARK_OWN, MARK_ALL)} -m owner --uid-owner ${options.sidecarUid} -g SYNGUARD-RAW`,
        CLEAR_PACKET_MARK,
        DROP_STRAY_RESET,
        `${firstAck(options.family)} -g SYNGUARD-ACK`,
        ...SKIP_QUEUE,
        dropForeignSource(options.family),
        // REJECT's own reset shares the refused SYN's unconfirmed conntrack entry, and nf_queue drops such a packet.
        '-p tcp -m tcp --tcp-flags RST RST -j RETURN',
        DROP_INVALID,
        // conntrack keeps an entry, with its mark, when a tuple is used again. Only the own kernel opens anew.
        `${SYN} ${CLEAR_CONNECTION_MARK}`,
        RESTORE_MARK,
        ...queueRules(options),
      ],
    },
    {
      name: 'SYNGUARD-ACK',
      rules: [`-j CONNMARK --set-xmark ${bits(0, MARK_PROVED)}`, '-j DROP'],
    },
    {
      // The shapes that the sidecar sends: the proof, a refusal's reset, a repeated SYN or SYN-ACK. Nothing else.
      name: 'SYNGUARD-RAW',
      rules: [
        '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK ACK -j RETURN',
        '-p tcp -m tcp --tcp-flags RST RST -j RETURN',
        '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN',
        '-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN,ACK -j RETURN',
        '-j DROP',
      ],
    },
  ]
}

/** What the filter table does with a verdict's mark. `before`: the rules that take packets out first. */
function verdictRules(options: RulesetOptions, before: readonly string[], silent: boolean): string[] {
  const prohibited = options.family === 4 ? 'icmp-admin-prohibited' : 'icmp6-adm-prohibited'
  const revokedPacket = `-m mark --mark ${bits(MARK_REVOKED, MARK_REVOKED)}`
  const revokedConnection = `-m connmark --mark ${bits(MARK_REVOKED, MARK_REVOKED)}`
  const refusal = silent
    ? [`${revokedPacket} -j DROP`]
    : [
        `-p tcp ${revokedPacket} -j REJECT --reject-with tcp-reset`,
        `${revokedPacket} -j REJECT --reject-with ${prohibited}`,
      ]
  return [
    // The fast path. A packet refused on a released tuple (a SYN) stays refused.
    `-m mark --mark ${bits(0, MARK_REVOKED)} -m connmark --mark ${bits(MARK_RELEASED, JUDGED)} -j RETURN`,
    ...before,
    `-p ${icmp(options.family)} -j RETURN`,
    // A SYN on a revoked tuple has a verdict of its own, and a reset must reach whoever still waits.
    `-p tcp -m tcp --tcp-flags SYN,RST NONE ${revokedConnection} -j REJECT --reject-with tcp-reset`,
    `! -p tcp ${revokedConnection} -j REJECT --reject-with ${prohibited}`,
    `-m mark --mark ${bits(0, JUDGED)} -j RETURN`,
    // Both bits: the connection is revoked with this packet. REVOKED alone refuses this packet only.
    `-m mark --mark ${bits(JUDGED, JUDGED)} ${SAVE_MARK}`,
    ...refusal,
    SAVE_MARK,
  ]
}

function filterChains(options: RulesetOptions): Chain[] {
  return [
    {
      name: 'SYNGUARD-IN',
      rules: verdictRules(options, [FROM_LOOPBACK], options.refusal === 'drop'),
    },
    {
      name: 'SYNGUARD-OUT',
      rules: verdictRules(options, [TO_LOOPBACK, `-m mark --mark ${bits(MARK_OWN, MARK_ALL)} -j RETURN`], false),
    },
    // A Pod is no router: a packet that is forwarded belongs to no connection of this Pod.
    { name: 'SYNGUARD-FORWARD', rules: ['-j DROP'] },
  ]
}

function requireInteger(name: string, value: number, highest: number): void {
  if (!Number.isInteger(value) || value < 0 || value > highest) {
    throw new RulesError('invalid-option', `${name} is ${value}`, `Give a whole number from 0 to ${highest}.`)
  }
}

/**
 * The ruleset of one address family: filter first, so that the verdicts' marks have a meaning before the first packet
 * is queued. Throws RulesError `invalid-option` for a queue number (0 to 65535) or uid outside its range.
 */
export function ruleset(options: RulesetOptions): readonly TableRules[] {
  requireInteger('queueTcp', options.queueTcp, 65535)
  requireInteger('queueOther', options.queueOther, 65535)
  requireInteger('sidecarUid', options.sidecarUid, 0xfffffffe)
  if (options.queueTcp === options.queueOther) {
    throw new RulesError('invalid-option', 'queueTcp equals queueOther', 'Give each its own queue number.')
  }
  return [
    {
      table: 'filter',
      chains: filterChains(options),
      jumps: [
        { from: 'INPUT', to: 'SYNGUARD-IN' },
        { from: 'OUTPUT', to: 'SYNGUARD-OUT' },
        { from: 'FORWARD', to: 'SYNGUARD-FORWARD' },
      ],
    },
    {
      table: 'mangle',
      chains: mangleChains(options),
      jumps: [
        { from: 'INPUT', to: 'SYNGUARD-IN' },
        { from: 'OUTPUT', to: 'SYNGUARD-OUT' },
      ],
    },
  ]
}
