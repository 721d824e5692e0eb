/** The process behind crowd.ts: many client Pods' identities and handshakes in one network namespace. */
import { execFile } from 'node:child_process'
import { setImmediate } from 'node:timers/promises'
import type { TrustBundle } from '../../../api/identity.ts'
import { verifyWit } from '../../../certs/wit.ts'
import { answerChannel } from '../../../lab/channel.ts'
import { parseAddress } from '../../../policy/address.ts'
import { witSectionParts } from '../../../sidecar/handshake/frame.ts'
import { createDatagramBatch, datagramBytes } from '../../../sidecar/netlink/datagram-batch.ts'
import { nextMessage } from '../../../sidecar/netlink/message.ts'
import { createQueuedPacket, decodeQueued, encodeVerdict, NF_ACCEPT } from '../../../sidecar/netlink/queue.ts'
import { openQueueSocket } from '../../../sidecar/netlink/queue-socket.ts'
import { openRawSocket } from '../../../sidecar/netlink/raw-socket.ts'
import { createPacket, decodePacket } from '../../../sidecar/packet/decode.ts'
import { createCrowdHandshake } from './crowd-handshake.ts'
import { obtainIdentity } from './crowd-identity.ts'
import { CROWD_QUEUE, type CrowdRequest, type Visited } from './crowd-protocol.ts'

const PARALLEL_REQUESTS = 16
const PACKET_BYTES = 4_096

const queue = openQueueSocket({ receiveBufferBytes: 8 << 20, receiveTimeoutMilliseconds: 2 })
queue.bind(CROWD_QUEUE, { copyRange: 0xffff, maximumLength: 4_096, flags: 0 })
const handshake = createCrowdHandshake(openRawSocket(4, 0))
let trust: { readonly bundle: TrustBundle; readonly trustDomain: string; readonly issuer: string } | undefined
let generation = 0

async function obtain({ pods, issuer, trustDomain }: Extract<CrowdRequest, { do: 'obtain' }>): Promise<void> {
  const waiting = [...pods]
  const work = async (): Promise<void> => {
    for (let pod = waiting.pop(); pod !== undefined; pod = waiting.pop()) {
      const { own, bundle } = await obtainIdentity(issuer, pod, ++generation)
      trust = { bundle, trustDomain, issuer: `https://${issuer.name}` }
      handshake.add(Buffer.from(parseAddress(pod.address) ?? []).toString('latin1'), own)
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_REQUESTS }, work))
}

async function verifyServers(): Promise<void> {
  for (const section of handshake.takeUnknown()) {
    const parts = witSectionParts(section)
    if (parts === undefined || trust === undefined) continue
    const [header, payload, signature] = [parts.header, parts.payload, parts.signature].map((part) => Buffer.from(part))
    if (header === undefined || payload === undefined || signature === undefined) continue
    const { bundle, trustDomain, issuer } = trust
    const now = Math.floor(Date.now() / 1000)
    const expected = { now, trustDomain, issuer, skewSeconds: 120 }
    const wit = await verifyWit({ header, payload, signature }, bundle, expected)
    const { identity, cnf, kid, issuedAt, expiresAt } = wit
    handshake.addServer(section, {
      index: 1,
      indexByPort: new Map(),
      identity,
      addresses: identity.addresses.flatMap((address) => parseAddress(address) ?? []),
      witHash: wit.sha256,
      cnf,
      thumbprint: wit.cnfThumbprint,
      kid,
      issuedAt,
      expiresAt,
      refused: '',
      pairs: new Map(),
    })
  }
}

const batch = createDatagramBatch(32, 0x10000 + PACKET_BYTES)
const queued = createQueuedPacket()
const packet = createPacket()
const out = Buffer.alloc(PACKET_BYTES)
const verdict = Buffer.alloc(2 * PACKET_BYTES)

/** Judges what waits in the queue; returns at the latest after the receive timeout. */
function judgeWaiting(): void {
  const count = queue.receive(batch)
  for (let i = 0; i < count; i++) {
    const end = i * batch.slotBytes + datagramBytes(batch, i)
    for (
      let at = i * batch.slotBytes;
      decodeQueued(batch.buffer, at, end, queued) === 'ok';
      at = nextMessage(batch.buffer, at, end)
    ) {
      const bytes = batch.buffer.subarray(queued.payloadOffset, queued.payloadOffset + queued.payloadBytes)
      const answer =
        decodePacket(bytes, packet) === 'ok' ? handshake.judge(bytes, packet, out) : { verdict: NF_ACCEPT, bytes: 0 }
      const replaced = answer.bytes > 0 ? out : undefined
      const length = encodeVerdict(
        verdict,
        0,
        queued.queue,
        queued.id,
        answer.verdict,
        undefined,
        replaced,
        answer.bytes,
      )
      queue.send(verdict, length)
    }
  }
}

async function visit(request: Extract<CrowdRequest, { do: 'visit' }>): Promise<Visited> {
  const { flows, server, port, source, count, perSecond } = request
  const child = Promise.withResolvers<Visited>()
  execFile(flows, ['visit', server, String(port), source, String(count), String(perSecond)], (error, stdout) => {
    if (error) child.reject(error)
    else child.resolve(JSON.parse(stdout))
  })
  let done = false
  const end = (): void => {
    done = true
  }
  child.promise.then(end, end)
  while (!done) {
    judgeWaiting()
    await verifyServers()
    await setImmediate()
  }
  return await child.promise
}

answerChannel((request: CrowdRequest): Promise<unknown> => (request.do === 'obtain' ? obtain(request) : visit(request)))
