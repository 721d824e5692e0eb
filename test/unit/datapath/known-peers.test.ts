import { expect, it } from '@jest/globals'
import { advance, connect, createPod, establish, renew } from './pods.ts'

it('a Pod forgets the WITs of its peers once they have expired, and knows those that stand', async () => {
  const client = await createPod({ name: 'client', address: '10.244.0.2' })
  const server = await createPod({ name: 'server', address: '10.244.0.3' })
  const sizes: number[] = []
  // Half a lifetime of an hour each time, at both ends: three WITs of a peer are within their hour and two minutes.
  for (let renewal = 0; renewal < 20; renewal++) {
    expect((await establish(connect(client, server, { clientPort: 40_000 + renewal }))).release.action).toBe('release')
    sizes.push(server.gate.peers.size())
    advance([client, server], 1_800_000)
    await renew(client)
    await renew(server)
  }
  expect(sizes.slice(0, 3)).toEqual([1, 2, 3])
  expect(Math.max(...sizes)).toBe(3)
})
