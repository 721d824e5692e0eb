import { type Facts, type Seen, unseen } from './facts.ts'

export type Status = 'ok' | 'fix' | 'unseen' | 'note'

/** What a check found out. */
export interface Finding {
  /** The check's name. */
  readonly check: string
  readonly status: Status
  readonly message: string
  /** What mends it, as a command or a sentence. */
  readonly fix?: string
  /** The namespace that it is about, where it is about one. */
  readonly namespace?: string
}

export type Found = Omit<Finding, 'check'>

export interface Check {
  /** In kebab case, as the first word of its line. */
  readonly name: string
  /** Whether it asks for something that only an installation has. */
  readonly needsInstallation?: boolean
  /** Everything that it finds, at least one; none where there is nothing to look at. */
  readonly run: (facts: Facts) => readonly Found[]
}

export const ok = (message: string): Found => ({ status: 'ok', message })
export const note = (message: string, fix?: string): Found => ({ status: 'note', message, ...(fix && { fix }) })
export const mend = (message: string, fix: string): Found => ({ status: 'fix', message, fix })
export const notSeen = (what: string, reason: string): Found => ({
  status: 'unseen',
  message: `${what} could not be seen: ${reason}`,
})

/** What `found` says of the value, or that it could not be seen. */
export function ofSeen<Value>(
  what: string,
  fact: Seen<Value>,
  found: (value: Value) => readonly Found[],
): readonly Found[] {
  return fact.seen ? found(fact.value) : [notSeen(what, fact.reason)]
}

/** Names, the first few of many. */
export function listNames(names: readonly string[], most = 5): string {
  const shown = names.slice(0, most).join(', ')
  return names.length > most ? `${shown} and ${names.length - most} more` : shown
}

/** `1 Pod`, `2 Pods` */
export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`

/** The first reason for which something of many could not be seen. */
export function firstUnseen(
  facts: readonly Seen<unknown>[],
): { readonly seen: false; readonly reason: string } | undefined {
  const [first, ...others] = facts.flatMap((fact) => (fact.seen ? [] : [fact.reason]))
  if (first === undefined) return undefined
  return unseen(others.length === 0 ? first : `${first}, and ${others.length} more`)
}
