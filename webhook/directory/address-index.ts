/** Many keys under many values each way: which Pods claim an address, which slices a Service has. */
export interface KeyIndex {
  /** Replaces the values of `key`; none removes it. */
  set(key: string, values: Iterable<string>): void
  /** The keys that claim `value`. */
  keysOf(value: string): ReadonlySet<string>
  /** The values that `key` claims. */
  valuesOf(key: string): ReadonlySet<string>
  /** Every value that is claimed. */
  values(): Iterable<string>
}

const NONE: ReadonlySet<string> = new Set()

export function createKeyIndex(): KeyIndex {
  const keys = new Map<string, Set<string>>()
  const values = new Map<string, ReadonlySet<string>>()
  return {
    set(key, claimed) {
      for (const value of values.get(key) ?? NONE) {
        const claimants = keys.get(value)
        claimants?.delete(key)
        if (claimants?.size === 0) keys.delete(value)
      }
      const next = new Set(claimed)
      if (next.size === 0) values.delete(key)
      else values.set(key, next)
      for (const value of next) {
        const claimants = keys.get(value)
        if (claimants === undefined) keys.set(value, new Set([key]))
        else claimants.add(key)
      }
    },
    keysOf: (value) => keys.get(value) ?? NONE,
    valuesOf: (key) => values.get(key) ?? NONE,
    values: () => keys.keys(),
  }
}
