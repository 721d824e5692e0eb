const BINARY = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']
const DECIMAL: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
}
const QUANTITY = /^([+-]?)(\d{1,30})?(?:\.(\d{0,30}))?(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,2}))?$/

/**
 * Returns the quantity in units of 10^-9, rounded down, or undefined where the text is none
 * (apimachinery's resource.Quantity: decimal, binary and exponent suffixes).
 */
export function parseQuantity(value: string | number): bigint | undefined {
  const match = QUANTITY.exec(String(value))
  if (match === null) return undefined
  const [, sign, whole = '', fraction = '', binary, decimal, exponent] = match
  if (whole + fraction === '') return undefined
  const power = 9 - fraction.length + (exponent === undefined ? (DECIMAL[decimal ?? ''] ?? 0) : Number(exponent))
  const factor = 1024n ** BigInt(binary === undefined ? 0 : BINARY.indexOf(binary))
  const digits = BigInt(whole + fraction) * factor
  const scaled = power >= 0 ? digits * 10n ** BigInt(power) : digits / 10n ** BigInt(-power)
  return sign === '-' ? -scaled : scaled
}
