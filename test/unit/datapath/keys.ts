import type { ConnectionKey } from '../../../sidecar/datapath/connection-key.ts'

/** A key of these words. */
export function keyOf(...words: readonly number[]): ConnectionKey {
  return { words: Int32Array.from(words), length: words.length }
}
