/** A median and how far its values lie apart. */
export interface Spread {
  readonly median: number
  readonly minimum: number
  readonly maximum: number
}

/** The middle value, or the mean of the two in the middle; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  const [low = Number.NaN, high = Number.NaN] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]]
  return (low + high) / 2
}

export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), minimum: Math.min(...values), maximum: Math.max(...values) }
}

/**
 * The spread of one series over another, round by round: both values of a quotient come from the same round, so that
 * what the machine does meanwhile weighs on both.
 */
export function ratioSpread(above: readonly number[], below: readonly number[]): Spread {
  if (above.length !== below.length) throw new RangeError(`${above.length} rounds over ${below.length}`)
  return spreadOf(above.map((value, round) => value / (below[round] ?? Number.NaN)))
}
