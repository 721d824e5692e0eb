import { describe, expect, it } from '@jest/globals'
import { AuthorityError } from '../../../../certs/errors.ts'
import { EMPTY_KEYRING, phaseOf } from '../../../../certs/rotation/keyring.ts'
import { createStage, type Stage, startReplica, type TestReplica } from './memory-store.ts'

const STEP_SECONDS = 5

/** Turns of all replicas, a few seconds apart; their sidecars acknowledge what they give out. */
async function run(stage: Stage, replicas: readonly TestReplica[], seconds: number, sidecars = stage.expected) {
  for (let passed = 0; passed < seconds; passed += STEP_SECONDS) {
    for (const replica of replicas) await replica.turn()
    acknowledge(replicas, sidecars)
    stage.elapsed += STEP_SECONDS
  }
}

function acknowledge(replicas: readonly TestReplica[], sidecars: readonly string[]): void {
  for (const [index, uid] of sidecars.entries()) {
    const { holder } = replicas[index % replicas.length] as TestReplica
    const generation = holder.current()?.generation
    if (generation !== undefined) holder.acknowledge(uid, generation)
  }
}

const phases = ({ history }: Stage) => history.map((ring) => phaseOf(ring))
const keysOf = ({ ring }: Stage) => ring.keys.map(({ id, state }) => `${id} ${state}`)

const WHOLE = ['idle', 'prepared', 'offered', 'switched', 'draining', 'idle']
/** Lifetime and three skews, and some turns. */
const DRAINED_SECONDS = 3_600 + 360 + 60

describe('two replicas', () => {
  it('make the authority once, and rotate it by request from one phase to the next', async () => {
    const stage = createStage()
    stage.expected = ['pod-1', 'pod-2']
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b', { clock: 90 })]
    await run(stage, replicas, 20)
    expect(keysOf(stage)).toEqual(['key-0 active'])
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, replicas, 60)
    expect([keysOf(stage), stage.status]).toEqual([
      ['key-0 previous', 'key-1 active'],
      expect.objectContaining({
        phase: 'draining',
        answered: { request: 'r1', outcome: 'taken' },
        sidecars: { expected: 2, acknowledged: 2, missing: [] },
      }),
    ])
    await run(stage, replicas, DRAINED_SECONDS)
    expect([phases(stage), keysOf(stage)]).toEqual([WHOLE, ['key-1 active']])
  })

  it('tell no private half but in the keyring: not in records, the lease or the status', async () => {
    const stage = createStage()
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, replicas, DRAINED_SECONDS)
    expect(phases(stage)).toEqual(WHOLE)
    expect(JSON.stringify(stage.history)).toContain('private half')
    expect(stage.told.length).toBeGreaterThan(1_000)
    expect(JSON.stringify(stage.told)).not.toContain('private half')
  })

  it('rotate by schedule, once each time', async () => {
    const stage = createStage()
    const options = { rotateEverySeconds: 10_000 }
    const replicas = [startReplica(stage, 'a', options), startReplica(stage, 'b', { ...options, clock: 90 })]
    await run(stage, replicas, 9_900)
    expect(phases(stage)).toEqual(['idle'])
    await run(stage, replicas, 5_000)
    expect([phases(stage), keysOf(stage)]).toEqual([WHOLE, ['key-1 active']])
  })

  it('refuse a request for good: it does not come true when it would be taken', async () => {
    const stage = createStage()
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, replicas, 10)
    stage.request = { id: 'r1', type: 'abort' }
    await run(stage, replicas, 20)
    expect(stage.status).toMatchObject({
      answered: { request: 'r1', outcome: 'refused', code: 'rotation-not-running' },
    })
    // An operator's rotation that follows is not aborted by it.
    stage.request = { id: 'r2', type: 'rotate' }
    await run(stage, replicas, 60)
    expect(phases(stage)).toEqual(['idle', 'idle', 'prepared', 'offered', 'switched', 'draining'])
    expect(stage.status?.answered).toEqual({ request: 'r2', outcome: 'taken' })
  })

  it('record a longer life of identities before anything else', async () => {
    const stage = createStage()
    await run(stage, [startReplica(stage, 'a')], 10)
    await run(stage, [startReplica(stage, 'a', { lifetimeSeconds: 7_200 })], 10)
    expect(stage.ring.keys.map(({ lifetimeSeconds }) => lifetimeSeconds)).toEqual([7_200])
  })
})

describe('a sidecar that does not acknowledge', () => {
  it('holds the step though the watch has not shown its Pod yet', async () => {
    const stage = createStage()
    Object.assign(stage, { expected: ['pod-1'], unseen: ['pod-2'] })
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, replicas, 10)
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, replicas, 60, ['pod-1'])
    expect([phaseOf(stage.ring), stage.status?.sidecars]).toEqual([
      'offered',
      { expected: 2, acknowledged: 1, missing: ['shop/pod-2'] },
    ])
    await run(stage, replicas, 60, ['pod-1', 'pod-2'])
    expect(phaseOf(stage.ring)).toBe('draining')
  })

  it('is named with the earliest time, and holds the step until then or until an operator forces it', async () => {
    for (const isForced of [false, true]) {
      const stage = createStage()
      stage.expected = ['pod-1', 'pod-2']
      const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
      await run(stage, replicas, 10)
      stage.request = { id: 'r1', type: 'rotate' }
      await run(stage, replicas, 60, ['pod-1'])
      expect(stage.status).toMatchObject({
        phase: 'offered',
        sidecars: { expected: 2, acknowledged: 1, missing: ['shop/pod-2'] },
        waits: [{ code: 'rotation-waits-sidecars', names: ['shop/pod-2'] }],
      })
      const offeredAt = stage.ring.keys.find(({ state }) => state === 'prepared')?.confirmed?.at ?? 0
      expect(stage.status?.waits[0]?.until).toBe(offeredAt + 3_600 + 360)
      if (isForced) stage.request = { id: 'r2', type: 'force' }
      await run(stage, replicas, isForced ? 20 : DRAINED_SECONDS, ['pod-1'])
      expect([isForced, phaseOf(stage.ring)]).toEqual([isForced, 'draining'])
    }
  })
})

/** Rejects every call from the given one on, as a process that is gone makes none. */
function crashAt(call: number) {
  let calls = 0
  return () => (calls++ >= call ? Promise.reject(new Error('crashed')) : undefined)
}

describe('a replica that crashes', () => {
  it('before any call of a rotation leaves the rest to the other one', async () => {
    const total = 120
    const reached = new Set<string>()
    for (let call = 0; call < total; call++) {
      const stage = createStage()
      stage.expected = ['pod-1', 'pod-2']
      const crashing = startReplica(stage, 'a', { before: crashAt(call), clock: 90 })
      const other = startReplica(stage, 'b')
      stage.request = { id: 'r1', type: 'rotate' }
      // It has the lease, and all to itself, until it crashes.
      for (;;) {
        const isAlive = await crashing.turn().then(
          () => true,
          () => false,
        )
        if (!isAlive) break
        acknowledge([crashing], stage.expected)
        stage.elapsed += STEP_SECONDS
      }
      reached.add(phaseOf(stage.ring))
      const before = stage.elapsed
      await run(stage, [other], 2 * DRAINED_SECONDS)
      expect([call, phases(stage), stage.ring.keys.map(({ state }) => state)]).toEqual([call, WHOLE, ['active']])
      expect(stage.elapsed).toBeGreaterThan(before)
    }
    expect([...reached]).toEqual(['none', 'idle', 'prepared', 'offered', 'switched', 'draining'])
  })

  it('is waited for as long as it may sign, and by then signs no more', async () => {
    const stage = createStage()
    const [stalled, other] = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, [stalled, other], 20)
    const stalledAt = stage.elapsed
    stage.request = { id: 'r1', type: 'rotate' }
    const seen: [phase: string, acts: boolean][] = []
    for (let passed = 0; passed < 120; passed += STEP_SECONDS) {
      await run(stage, [other], STEP_SECONDS)
      seen.push([phaseOf(stage.ring), stalled.holder.current() !== undefined])
      if (phaseOf(stage.ring) === 'prepared') {
        expect(stage.status?.waits).toMatchObject([
          { code: 'rotation-waits-replicas', names: expect.arrayContaining(['a']) },
        ])
      }
    }
    expect(seen.filter(([phase, acts]) => acts && !['idle', 'prepared'].includes(phase))).toEqual([])
    expect([seen.some(([, acts]) => acts), stage.elapsed - stalledAt, phaseOf(stage.ring)]).toEqual([
      true,
      120,
      'draining',
    ])
    // It wakes, and acts by the new keys.
    await stalled.holder.refresh()
    expect(stalled.holder.current()).toBe(stage.ring)
  })
})

describe('a replica that stalls', () => {
  it('before its write does not undo what another one wrote meanwhile', async () => {
    const stage = createStage()
    let release = () => {}
    let isStalling = false
    const before = (call: string) =>
      isStalling && call === 'writeKeyring' ? new Promise<void>((resolve) => (release = resolve)) : undefined
    const [stalled, other] = [startReplica(stage, 'a', { before }), startReplica(stage, 'b')]
    await run(stage, [stalled, other], 10)
    stage.request = { id: 'r1', type: 'rotate' }
    isStalling = true
    const late = stalled.reconcile()
    await new Promise((resolve) => setImmediate(resolve))
    await other.reconcile()
    const { ring } = stage
    release()
    expect([await late, stage.ring, phases(stage)]).toEqual([{}, ring, ['idle', 'prepared']])
  })

  it('in the midst of its reads takes no other replica for silent', async () => {
    const stage = createStage()
    let pause = 0
    const before = (call: string) => {
      // It is frozen after it asked for the records, and knows nothing of it.
      if (call === 'readRecords') stage.elapsed += pause
      return undefined
    }
    const [frozen, other] = [startReplica(stage, 'a', { before }), startReplica(stage, 'b')]
    await run(stage, [frozen, other], 20)
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, [frozen], STEP_SECONDS)
    expect(phaseOf(stage.ring)).toBe('prepared')
    pause = 100
    await frozen.turn()
    expect(phaseOf(stage.ring)).toBe('prepared')
  })
})

describe('the status', () => {
  it('says what is wrong with a request, and nothing happens by it', async () => {
    const stage = createStage()
    stage.problems = ['identity: is longer than 100 characters.']
    await run(stage, [startReplica(stage, 'a')], 10)
    expect([stage.status?.conditions, phases(stage)]).toEqual([
      [{ code: 'rotation-request', message: 'identity: is longer than 100 characters.' }],
      ['idle'],
    ])
  })

  it('has the answer of another replica, and admits it where that one ended before it wrote it', async () => {
    const stage = createStage()
    await run(stage, [startReplica(stage, 'a')], 10)
    stage.request = { id: 'r1', type: 'abort' }
    await run(stage, [startReplica(stage, 'a')], 10)
    const refused = { request: 'r1', outcome: 'refused', code: 'rotation-not-running' }
    await run(stage, [startReplica(stage, 'b')], 60)
    expect(stage.status?.answered).toMatchObject(refused)
    stage.status = undefined
    await run(stage, [startReplica(stage, 'b')], 10)
    expect(stage.status).toMatchObject({ answered: { request: 'r1', outcome: 'unknown' } })
  })

  it('tells of a damaged Secret, with the keys that are acted by', async () => {
    const stage = createStage()
    let isDamaged = false
    const error = new AuthorityError('authority-key', 'identity.json: no list.')
    const before = (call: string) => (isDamaged && call === 'readKeyring' ? Promise.reject(error) : undefined)
    const replica = startReplica(stage, 'a', { before })
    await run(stage, [replica], 10)
    isDamaged = true
    await expect(replica.turn()).rejects.toBe(error)
    expect(stage.status).toMatchObject({
      phase: 'idle',
      keys: [{ id: 'key-0', state: 'active' }],
      waits: [],
      conditions: [{ code: 'authority-key', message: 'identity.json: no list.' }],
    })
  })
})

describe('the lease', () => {
  it('is held by one replica, and goes to the other once the first is silent', async () => {
    const stage = createStage()
    const [first, second] = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, [first, second], 30)
    expect(stage.lease?.holder).toBe('a')
    await run(stage, [second], 10)
    expect(stage.lease?.holder).toBe('a')
    await run(stage, [second], 10)
    expect(stage.lease?.holder).toBe('b')
  })
})

describe('what a replica acts by', () => {
  it('is nothing before its first reading, nor when the last was too long ago', async () => {
    const stage = createStage()
    const replica = startReplica(stage, 'a')
    expect(replica.holder.current()).toBeUndefined()
    await run(stage, [replica], 10)
    const { ring } = stage
    expect(replica.holder.current()).toBe(ring)
    stage.elapsed += 26
    expect(replica.holder.current()).toBeUndefined()
    await replica.holder.refresh()
    expect(replica.holder.current()).toBe(ring)
  })

  it('ends with the fence, which counts from before the reading', async () => {
    const stage = createStage()
    let pause = 0
    const before = (call: string) => {
      if (call === 'readKeyring') stage.elapsed += pause
      return undefined
    }
    const replica = startReplica(stage, 'a', { before })
    await run(stage, [replica], 10)
    pause = 30
    await replica.holder.refresh()
    expect(replica.holder.current()).toBeUndefined()
  })

  it('was read after it published what it acted by before; who steps reads the keys first and all else after', async () => {
    const stage = createStage()
    const calls: string[] = []
    const before = (call: string) => {
      calls.push(call)
      return undefined
    }
    await startReplica(stage, 'a', { before }).turn()
    const refresh = ['publish', 'readKeyring']
    const facts = ['readRequest', 'readRecords', 'readPublished']
    const step = ['readKeyring', ...facts, 'writeKeyring', 'writeStatus']
    // At first what an earlier process of its name has heard.
    expect(calls).toEqual(['readRecords', ...refresh, 'readLease', 'writeLease', ...step, ...refresh])
  })

  it('stays where the keyring is gone: none is made, and the status says what to do', async () => {
    const stage = createStage()
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, replicas, 20)
    const { ring } = stage
    Object.assign(stage, { ring: EMPTY_KEYRING, version: stage.version + 1 })
    const anew = startReplica(stage, 'c')
    await run(stage, [...replicas, anew], 300)
    expect(stage.ring).toBe(EMPTY_KEYRING)
    expect(stage.status).toMatchObject({ phase: 'none', waits: [{ code: 'rotation-keys-lost', names: ['a', 'b'] }] })
    expect([...replicas, anew].map(({ holder }) => holder.current())).toEqual([ring, ring, undefined])
    // Once all of them were stopped, one that starts begins anew, above what was acknowledged before.
    await run(stage, [startReplica(stage, 'a')], 100)
    expect(stage.ring.generation).toBeGreaterThan(ring.generation)
  })

  it('goes on from an earlier keyring that was put back, as sidecars must take it and acknowledge it anew', async () => {
    const stage = createStage()
    stage.expected = ['pod-1']
    const replicas = [startReplica(stage, 'a'), startReplica(stage, 'b')]
    await run(stage, replicas, 20)
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, replicas, 30, [])
    const backup = stage.ring
    expect(phaseOf(backup)).toBe('offered')
    stage.request = { id: 'r2', type: 'abort' }
    await run(stage, replicas, 30)
    const held = stage.ring.generation
    Object.assign(stage, { ring: backup, version: stage.version + 1 })
    stage.request = undefined
    // What was acknowledged is of keys that lack the new one.
    await run(stage, replicas, 60, [])
    expect([phaseOf(stage.ring), stage.ring.generation > held, stage.status?.sidecars.missing]).toEqual([
      'offered',
      true,
      ['shop/pod-1'],
    ])
    await run(stage, replicas, 60)
    expect(phaseOf(stage.ring)).toBe('draining')
  })

  it('stays where the keyring is damaged, and not where it cannot be read', async () => {
    for (const [error, acts] of [
      [new AuthorityError('authority-key', 'damaged'), true],
      [new Error('no answer'), false],
    ] as const) {
      const stage = createStage()
      let isBroken = false
      const before = (call: string) => (isBroken && call === 'readKeyring' ? Promise.reject(error) : undefined)
      const replica = startReplica(stage, 'a', { before })
      await run(stage, [replica], 10)
      isBroken = true
      for (let passed = 0; passed < 60; passed += STEP_SECONDS) {
        await expect(replica.turn()).rejects.toBe(error)
        stage.elapsed += STEP_SECONDS
      }
      expect(replica.holder.current() !== undefined).toBe(acts)
    }
  })

  it('has what an earlier process of its name heard of sidecars, which do not say it again', async () => {
    const stage = createStage()
    stage.expected = ['pod-1', 'pod-2']
    const replica = startReplica(stage, 'a')
    await run(stage, [replica], 10)
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, [replica], 30, ['pod-1'])
    expect(phaseOf(stage.ring)).toBe('offered')
    await run(stage, [startReplica(stage, 'a')], 60, ['pod-2'])
    expect(phaseOf(stage.ring)).toBe('draining')
  })

  it('publishes acknowledgements while a step may wait for them, and forgets them after', async () => {
    const stage = createStage()
    stage.expected = ['pod-1']
    const replica = startReplica(stage, 'a')
    const acknowledged = () => stage.records.get('a')?.acknowledged.map(([uid]) => uid)
    await run(stage, [replica], 20)
    expect(acknowledged()).toEqual([])
    stage.request = { id: 'r1', type: 'rotate' }
    await run(stage, [replica], 60)
    expect(acknowledged()).toEqual(['pod-1'])
    await run(stage, [replica], DRAINED_SECONDS)
    expect(acknowledged()).toEqual([])
  })
})
