/** A lab whose network belongs to an attacker: applications in Pods, packets by hand, and what is done to those on the way. */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { type Channel, createChannel } from '../../../lab/channel.ts'
import { runCommand, writeSysctls } from '../../../lab/command.ts'
import type { Lab, LabOptions } from '../../../lab/lab.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { parseAddress } from '../../../policy/address.ts'
import { buildTcp } from '../../../sidecar/packet/build.ts'
import { createPacket, decodePacket, type Packet } from '../../../sidecar/packet/decode.ts'
import { addressOf, createTestLab, runIdlePod } from '../../lab/objects.ts'

export const PORT = 7300
/** What must come has so long to come, on a machine that is busy with other things. */
const ARRIVAL_MILLISECONDS = 5_000
/** Packets with this TTL are the attacker's: the path neither tracks nor treats them. */
const ATTACKERS_TTL = 99
const QUEUE = 77
/** What an iptables rule does to give packets to the path, but for those of the attacker himself. */
export const TO_PATH = [
  ...['-m', 'ttl', '!', '--ttl-eq', String(ATTACKERS_TTL)],
  ...['-j', 'NFQUEUE', '--queue-num', String(QUEUE)],
] as const

export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const ACK = 0x10
export const SYN_ACK = 0x12

export type Kind = 'syn' | 'syn-ack' | 'proof' | 'ack' | 'data' | 'fin' | 'rst'

/** What the path does to packets of these kinds. */
export interface Treatment {
  /** The connection with this port at its client; without one, all that have no treatment of their own. */
  readonly port?: number
  readonly drop?: readonly Kind[]
  /** Treats only what this address sends. */
  readonly from?: string
  readonly strip?: readonly Kind[]
  readonly delay?: readonly Kind[]
  /** XORs one byte of the payload. */
  readonly alter?: { readonly kind: Kind; readonly at: number; readonly mask: number }
}

export type PathRequest =
  | { readonly do: 'send'; readonly packets: readonly string[] }
  | { readonly do: 'sweep'; readonly packet: string; readonly step: number }
  | { readonly do: 'treat' | 'go on'; readonly how: Treatment }
  | { readonly do: 'let pass' | 'seen' }

export interface PathAnswers extends Record<PathRequest['do'], unknown> {
  readonly seen: readonly string[]
}

export type PeerRequest =
  | { readonly do: 'listen'; readonly port: number }
  | { readonly do: 'heard'; readonly from: number }
  | { readonly do: 'end accepted'; readonly from: number }
  | {
      readonly do: 'open'
      readonly name: string
      readonly address: string
      readonly port: number
      readonly from: number
      readonly seconds?: number
    }
  | { readonly do: 'say'; readonly name: string; readonly text: string; readonly seconds?: number }
  | { readonly do: 'end' | 'reset'; readonly name: string }

/** What an application met since it was last asked. */
export interface Heard {
  readonly accepted: number
  readonly text: string
}

/** An attempt's outcome: one of them. */
export interface Outcome {
  readonly opened?: true
  readonly echoed?: string
  readonly error?: string
}

export interface PeerAnswers extends Record<PeerRequest['do'], unknown> {
  readonly heard: Heard
  readonly open: Outcome
  readonly say: Outcome
}

export interface Peer {
  readonly pod: RunningPod
  readonly address: string
  readonly ask: Channel<PeerRequest, PeerAnswers>['ask']
}

export interface Path {
  /** What becomes of packets from now on, in place of what became of those of the same port before. */
  treat(how: Treatment): Promise<void>
  /** Lets through what was delayed, and treats what follows so. */
  goOn(how: Treatment): Promise<void>
  /** Treats nothing any more. */
  letPass(): Promise<void>
  /** What came along since it was last asked. */
  seen(): Promise<Seen[]>
  /** The first such packet since `seen` was last asked; waits for it, and throws where it does not come. */
  sees(matches: (packet: Seen) => boolean): Promise<Seen>
  send(packets: readonly Buffer[]): Promise<void>
  /** Sends one packet under every `step`-th sequence number. */
  sweep(packet: Buffer, step: number): Promise<void>
}

export interface Seen extends Readonly<Packet> {
  readonly bytes: Buffer
  readonly payload: Buffer
}

export interface Field {
  readonly lab: Lab
  /** On the way between the Pods: sees, changes and sends. */
  readonly path: Path
  /** Runs a Pod with peer.ts in it; guarded in the namespace `guarded`. */
  peer(namespace: string, name: string): Promise<Peer>
  /** A raw socket in a Pod's network namespace, off the path. */
  offPath(pod: RunningPod): Promise<Path>
  /** Runs a command in the node's network namespace. */
  onNode(...command: readonly string[]): Promise<string>
  stop(): Promise<void>
}

export async function createField(options: LabOptions = {}): Promise<Field> {
  const lab = await createTestLab(options)
  const children: ChildProcess[] = []
  try {
    return await assemble(lab, children)
  } catch (error) {
    for (const child of children) child.kill('SIGKILL')
    await lab.stop()
    throw error
  }
}

async function assemble(lab: Lab, children: ChildProcess[]): Promise<Field> {
  const onNode = (...command: readonly string[]) =>
    runCommand('ip', ['netns', 'exec', lab.network.node, ...command], { timeoutMs: 20_000 })

  function start(netns: string, script: string, ...parameters: string[]): ChildProcess {
    const command = [process.execPath, '--no-warnings', join(import.meta.dirname, script), ...parameters]
    const stdio = ['ignore', 'inherit', 'inherit', 'ipc'] as const
    const child = spawn('ip', ['netns', 'exec', netns, ...command], { stdio: [...stdio] })
    children.push(child)
    return child
  }

  async function startPath(netns: string, queue: number): Promise<Path> {
    const child = start(netns, 'path.ts', String(queue))
    const { ask } = createChannel<PathRequest, PathAnswers>(child, 'path.ts')
    const look = async () => (await ask({ do: 'seen' })).map((hex) => decode(Buffer.from(hex, 'hex')))
    let looked: Seen[] = []
    const path: Path = {
      async treat(how) {
        await ask({ do: 'treat', how })
      },
      async goOn(how) {
        await ask({ do: 'go on', how })
      },
      async letPass() {
        await ask({ do: 'let pass' })
      },
      async seen() {
        const all = [...looked, ...(await look())]
        looked = []
        return all
      },
      async sees(matches) {
        for (const deadline = Date.now() + ARRIVAL_MILLISECONDS; ; await pause(20)) {
          looked.push(...(await look()))
          const found = looked.find(matches)
          if (found) return found
          if (Date.now() > deadline) throw new Error('no such packet came along')
        }
      },
      async send(packets) {
        await ask({ do: 'send', packets: packets.map((bytes) => bytes.toString('hex')) })
      },
      async sweep(packet, step) {
        await ask({ do: 'sweep', packet: packet.toString('hex'), step })
      },
    }
    // Its first answer says that its queue is bound.
    await path.letPass()
    return path
  }

  const path = await startPath(lab.network.node, QUEUE)
  for (const side of ['--sport', '--dport']) {
    await onNode('iptables', '-t', 'mangle', '-A', 'FORWARD', '-p', 'tcp', side, String(PORT), ...TO_PATH)
  }
  const ttl = ['-m', 'ttl', '--ttl-eq', String(ATTACKERS_TTL)]
  await onNode('iptables', '-t', 'raw', '-A', 'PREROUTING', ...ttl, '-j', 'CT', '--notrack')
  await onNode('iptables', '-t', 'raw', '-A', 'OUTPUT', ...ttl, '-j', 'CT', '--notrack')
  // What the path's conntrack would drop must meet the Pods' own defences.
  await onNode('iptables', '-I', 'FORWARD', '-j', 'ACCEPT')

  return {
    lab,
    path,
    onNode,
    async peer(namespace, name) {
      const pod = await runIdlePod(lab, namespace, name)
      // A client whose connection is neither answered nor refused gives up at the test's own limit.
      await writeSysctls(pod.network.netns, ['net.ipv4.ip_local_port_range=50000 60000'])
      const { ask } = createChannel<PeerRequest, PeerAnswers>(start(pod.network.netns, 'peer.ts'), 'peer.ts')
      return { pod, address: addressOf(pod), ask }
    },
    offPath: (pod) => startPath(pod.network.netns, 0),
    async stop() {
      for (const child of children) child.kill('SIGKILL')
      await lab.stop()
    },
  }
}

export function decode(bytes: Buffer): Seen {
  const packet = createPacket()
  if (decodePacket(bytes, packet) !== 'ok') throw new Error('a packet on the path does not decode')
  return { ...packet, bytes, payload: Buffer.from(bytes.subarray(packet.payloadOffset, packet.totalBytes)) }
}

/** Type byte of a packet's frame, 0 without one. */
export function frameType(seen: Seen): number {
  return seen.payload.toString('latin1', 0, 4) === 'SYNG' ? seen.payload.readUInt8(5) : 0
}

export interface Forged {
  readonly from: string
  readonly fromPort: number
  readonly to: string
  readonly toPort: number
  readonly flags: number
  readonly sequence?: number
  readonly acknowledgement?: number
  readonly payload?: Uint8Array
}

/** An IPv4 packet with right checksums, whoever's addresses it has. */
export function forge(packet: Forged): Buffer {
  const out = Buffer.alloc(65_536)
  const length = buildTcp(
    {
      family: 4,
      source: parseAddress(packet.from) ?? new Uint8Array(4),
      destination: parseAddress(packet.to) ?? new Uint8Array(4),
      sourcePort: packet.fromPort,
      destinationPort: packet.toPort,
      sequence: (packet.sequence ?? 0) >>> 0,
      acknowledgement: (packet.acknowledgement ?? 0) >>> 0,
      flags: packet.flags,
      window: 64_000,
      hopLimit: ATTACKERS_TTL,
    },
    packet.payload ?? new Uint8Array(0),
    out,
  )
  if (length === 0) throw new Error('a forged packet does not fit')
  return Buffer.from(out.subarray(0, length))
}

export const pause = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds))
