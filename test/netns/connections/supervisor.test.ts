import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startWorker } from '../../../sidecar/control/worker-supervisor.ts'
import type { FromWorker, WorkerData } from '../../../sidecar/datapath/messages.ts'
import { type EnteredNamespace, enterNewNamespace } from '../netlink/namespace.ts'

let namespace: EnteredNamespace | undefined
beforeAll(() => {
  namespace = enterNewNamespace()
})
afterAll(async () => await namespace?.leave())

describe('a packet path thread that dies', () => {
  it('is started again and gets the queues that the dead one held', async () => {
    const bound: FromWorker[] = []
    let restarts = 0
    const supervisor = startWorker({
      script: new URL('./dying-worker.ts', import.meta.url),
      data: () => ({ queueTcp: 60, queueOther: 61 }) as WorkerData,
      // The worker dies of the first thing that it hears.
      briefing: () => (bound.length < 2 ? [{ type: 'ready', ready: true }] : []),
      onMessage: (message) => bound.push(message),
      onRestart: () => restarts++,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
    })
    const deadline = Date.now() + 10_000
    while (bound.length < 3 && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20))
    expect(bound.map(({ type }) => type)).toEqual(['bound', 'bound', 'bound'])
    expect({ restarts, generation: supervisor.generation(), bound: supervisor.bound() }).toEqual({
      restarts: 2,
      generation: 3,
      bound: true,
    })
    await supervisor.stop()
  })
})
