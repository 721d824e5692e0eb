/** The rules of sidecar/control/policies/source.ts, which every source of policies passes. */
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { SynguardError } from '../../api/errors.ts'
import type { PolicySet, PolicySource } from '../../sidecar/control/policies/source.ts'
import { until } from './stage.ts'

/** A place for policies, with whoever writes them. */
export interface PolicyStage {
  /** For the policies of `namespace`; not started. */
  readonly source: PolicySource
  readonly namespace: string
  /** Creates or replaces a policy. Two may not be written within one file or object. */
  put(policy: PolicyObject): Promise<void>
  remove(name: string): Promise<void>
  /** Replaces what is stored of a policy by something that no reader of this version takes whole; it isolated `app`. */
  damage(name: string): Promise<void>
  /** The place cannot be reached until mend(); writers still reach it where they can at all. */
  cut(): Promise<void>
  mend(): Promise<void>
  /** What the source holds on to is made anew, with the same policies: it has to read everything again. */
  renew(): Promise<void>
  close(): Promise<void>
}

export interface PolicyObject {
  readonly name: string
  /** Another than the stage's where set. */
  readonly namespace?: string
  /** The value of the label `app` that it isolates. */
  readonly app: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** The object as users write it. */
export function manifestOf({ name, app, annotations }: PolicyObject, namespace: string) {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace, ...(annotations && { annotations }) },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'] },
  }
}

/** Long enough that a change which should not be told would be. */
const quiet = () => new Promise((resolve) => setTimeout(resolve, 300))

export function describePolicySource(name: string, createStage: () => Promise<PolicyStage>): void {
  describe(name, () => {
    let stage: PolicyStage
    let sets: PolicySet[]
    let errors: SynguardError[]

    beforeEach(async () => {
      stage = await createStage()
      sets = []
      errors = []
    })
    afterEach(async () => {
      stage.source.stop()
      await stage.close()
    })

    const start = () =>
      stage.source.start({ onChange: (set) => void sets.push(set), onError: (error) => void errors.push(error) })

    /** `one=web two=api`: the policies of the last set by name, and what they isolate; `?` where it is not synced. */
    function last(): string {
      const set = sets.at(-1)
      if (set === undefined) return 'none'
      const shown = set.policies.map(({ name: policy, podSelector }) => `${policy}=${podSelector[0]?.values[0] ?? '*'}`)
      return shown.sort().join(' ') + (set.synced ? '' : '?')
    }
    const becomes = (expected: string) => until(expected, () => last() === expected)

    it('gives the whole set once it was read in full, also where there is none', async () => {
      expect(stage.source.confirmedAt()).toBeUndefined()
      start()
      await until('the first set', () => sets.length > 0)
      expect(sets).toEqual([{ policies: [], synced: true }])
    })

    it('gives what is there at the start, of its own namespace alone', async () => {
      await stage.put({ name: 'one', app: 'web' })
      await stage.put({ name: 'two', app: 'api' })
      await stage.put({ name: 'elsewhere', app: 'web', namespace: 'elsewhere' })
      start()
      await becomes('one=web two=api')
      expect(sets.flatMap(({ policies }) => policies.map(({ namespace }) => namespace))).not.toContain('elsewhere')
      expect(errors).toEqual([])
    })

    it('follows a policy that is made, changed and deleted', async () => {
      start()
      await becomes('')
      await stage.put({ name: 'one', app: 'web' })
      await becomes('one=web')
      await stage.put({ name: 'two', app: 'api' })
      await becomes('one=web two=api')
      await stage.put({ name: 'one', app: 'db' })
      await becomes('one=db two=api')
      await stage.remove('two')
      await becomes('one=db')
      expect(errors).toEqual([])
    })

    it('does not tell of a change that changes no decision', async () => {
      await stage.put({ name: 'one', app: 'web' })
      start()
      await becomes('one=web')
      await stage.put({ name: 'one', app: 'web', annotations: { note: 'seen' } })
      await quiet()
      expect(sets).toHaveLength(1)
    })

    it('names a policy that turns unreadable once, keeps it isolating whom it isolated, and follows the others', async () => {
      await stage.put({ name: 'one', app: 'web' })
      await stage.put({ name: 'two', app: 'api' })
      start()
      await becomes('one=web two=api')
      await stage.damage('one')
      await until('an error', () => errors.length > 0)
      await stage.put({ name: 'two', app: 'db' })
      await becomes('one=web two=db')
      await quiet()
      expect(errors.map(({ message }) => message)).toEqual([expect.stringMatching(/one\b/)])
      expect(sets.at(-1)?.policies.find((policy) => policy.name === 'one')?.policyTypes).toContain('Ingress')
    })

    it('keeps the last policies while their place is away, says so once, and catches up after', async () => {
      await stage.put({ name: 'one', app: 'web' })
      await stage.put({ name: 'two', app: 'api' })
      start()
      await becomes('one=web two=api')
      await stage.cut()
      await until('an error', () => errors.length > 0)
      const confirmedAt = stage.source.confirmedAt() ?? 0
      await quiet()
      expect(last()).toBe('one=web two=api')
      expect(new Set(errors.map(({ message }) => message)).size).toBe(errors.length)
      expect(stage.source.confirmedAt()).toBeLessThanOrEqual(confirmedAt + 1)

      await stage.mend()
      await stage.put({ name: 'one', app: 'db' })
      await stage.remove('two')
      await becomes('one=db')
      await until('it to be confirmed again', () => (stage.source.confirmedAt() ?? 0) > confirmedAt + 1)
    })

    it('is not synced before it could read everything', async () => {
      await stage.put({ name: 'one', app: 'web' })
      await stage.cut()
      start()
      await until('an error', () => errors.length > 0)
      await quiet()
      expect([last(), stage.source.confirmedAt()]).toEqual(['none', undefined])
      await stage.mend()
      await becomes('one=web')
    })

    it('reads everything again where what it held on to is gone: what is the same is not told again', async () => {
      await stage.put({ name: 'one', app: 'web' })
      await stage.put({ name: 'two', app: 'api' })
      start()
      await becomes('one=web two=api')
      const told = sets.length
      await stage.renew()
      await stage.put({ name: 'three', app: 'db' })
      await becomes('one=web three=db two=api')
      for (const set of sets.slice(told)) expect(set.policies.length).toBeGreaterThanOrEqual(2)
    }, 120_000)

    it('says nothing after it is stopped', async () => {
      start()
      await becomes('')
      stage.source.stop()
      await stage.put({ name: 'one', app: 'web' })
      await quiet()
      expect([sets.length, errors]).toEqual([1, []])
    })
  })
}
