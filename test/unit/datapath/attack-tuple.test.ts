/** A tuple used again while conntrack still knows, with its mark, the connection that was released on it. */
import { describe, expect, it } from '@jest/globals'
import { MARK_RELEASED, MARK_STALE } from '../../../api/marks.ts'
import {
  ACK,
  connect,
  establish,
  fromClient,
  fromServer,
  judge,
  SYN,
  SYN_ACK,
  setPolicies,
  settle,
  twoPods,
} from './pods.ts'

const STALE = (MARK_RELEASED | MARK_STALE | 1) >>> 0

async function released() {
  const { client, server } = await twoPods()
  const reopened: number[] = []
  server.gate.sockets.reopenTracking = (_bytes, packet) => void reopened.push(packet.sequence)
  const early = connect(client, server)
  const wire = await establish(early)
  const next = connect(client, server, { clientIsn: 80_000, serverIsn: 90_000 })
  return { client, server, early, wire, next, reopened }
}

describe('a SYN on a tuple whose entry is released', () => {
  it('makes conntrack follow the new connection, once, where no socket has the tuple any more', async () => {
    const { client, server, next, reopened } = await released()
    const syn = judge(client, 'out', fromClient(next, SYN)).packet
    expect(judge(server, 'in', syn, STALE)).toMatchObject({ action: 'pass', mark: 0 })
    judge(server, 'out', fromServer(next, SYN_ACK))
    judge(server, 'in', syn, STALE)
    expect(reopened).toEqual([next.clientIsn])
  })

  it('leaves conntrack alone where a socket still has it: whoever repeats a SYN must not end what runs', async () => {
    const { client, server, wire, next, reopened } = await released()
    server.established = true
    judge(server, 'in', judge(client, 'out', fromClient(next, SYN)).packet, STALE)
    judge(server, 'in', wire.syn, STALE)
    expect(reopened).toEqual([])
  })

  it('does not touch conntrack for whom policy denies or who shows no WIT', async () => {
    const { client, server, next, reopened } = await released()
    const syn = judge(client, 'out', fromClient(next, SYN)).packet
    const directory = { '10.244.0.2': { kind: 'pod', guarded: true, pod: client.identity } } as const
    await settle(server, 'in', fromClient(next, SYN), STALE, directory)
    setPolicies(
      server.gate,
      server.identity,
      `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress], ingress: [] }
`,
    )
    expect(judge(server, 'in', syn, STALE)).toMatchObject({ action: 'drop', refusal: 'policy' })
    expect(reopened).toEqual([])
  })

  it('does not release the new connection by the proof of the former one, nor the former one’s ACKs', async () => {
    const { client, server, early, wire, next } = await released()
    judge(server, 'in', judge(client, 'out', fromClient(next, SYN)).packet, STALE)
    await settle(server, 'out', fromServer(next, SYN_ACK))
    judge(server, 'in', wire.proof)
    expect(judge(server, 'in', fromClient(next, ACK)).action).toBe('drop')
    // A number of the former connection releases nothing but that one.
    expect(
      judge(server, 'in', fromClient(next, ACK, { acknowledgement: (early.serverIsn + 1) >>> 0 })).action,
    ).not.toBe('release')
  })
})
