import { describe, expect, it } from '@jest/globals'
import { createReviews } from '../../../sidecar/control/reviews.ts'

const pause = () => new Promise((done) => setTimeout(done, 5))

describe('reviews of running connections', () => {
  it('run one at a time, every cause that came meanwhile once more, in the order of their coming', async () => {
    const log: string[] = []
    let running = 0
    const reviews = createReviews(async (cause) => {
      running++
      log.push(`${cause} ${running}`)
      await pause()
      running--
    })
    for (const cause of ['policy', 'policy', 'mode', 'policy']) reviews.request(cause)
    await pause()
    await pause()
    reviews.request('void')
    for (let round = 0; round < 10; round++) await pause()
    expect(log).toEqual(['policy 1', 'policy 1', 'mode 1', 'void 1'])
  })
})
