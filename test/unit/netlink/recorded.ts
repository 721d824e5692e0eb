/** Datagrams that a kernel sent, recorded once in a network namespace with a few connections. */

import { readFileSync } from 'node:fs'

const RECORDED: ReadonlyMap<string, Uint8Array> = new Map(
  readFileSync(new URL('./recorded.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [name = '', hex = ''] = line.split(' ')
      return [name, Uint8Array.from(Buffer.from(hex, 'hex'))]
    }),
)

export const RECORDED_NAMES: readonly string[] = [...RECORDED.keys()]

/** A copy of a recorded datagram. */
export function recorded(name: string): Uint8Array {
  const bytes = RECORDED.get(name)
  if (bytes === undefined) throw new Error(`no recorded datagram ${name}`)
  return bytes.slice()
}
