import { describe, expect, it } from '@jest/globals'
import { connect, fromClient, judge, SYN, twoPods } from './pods.ts'

/** The same IPv4 packet as the first of several fragments, or as a later one. */
function asFragment(packet: Buffer, field: number): Buffer {
  const part = Buffer.from(packet)
  part.writeUInt16BE(field, 6)
  return part
}

describe('a TCP packet in fragments, which conntrack did not put together', () => {
  it.each([
    ['the first', 0x2000],
    ['a later one', 0x0001],
  ])('%s: passes nowhere, though no policy isolates anybody', async (_which, field) => {
    const { client, server } = await twoPods()
    const part = asFragment(fromClient(connect(client, server), SYN), field)
    for (const [pod, hook] of [[client, 'out'] as const, [server, 'in'] as const]) {
      expect(judge(pod, hook, part)).toMatchObject({ action: 'drop', refusal: 'fragment' })
    }
  })
})
