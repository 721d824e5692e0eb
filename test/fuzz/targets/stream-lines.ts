import { isDeepStrictEqual } from 'node:util'
import { createLineSplitter } from '../../../sidecar/control/line-splitter.ts'
import { bytesTarget, hold } from '../target.ts'

const MAXIMUM = 64

/** All lines of the bytes, pushed in pieces of a size; undefined where the splitter gave up. */
function split(bytes: Uint8Array, pieceBytes: number): { readonly lines: string[]; readonly whole: boolean } {
  const lines: string[] = []
  const splitter = createLineSplitter(MAXIMUM, (line) => lines.push(line))
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    if (!splitter.push(Buffer.from(bytes.subarray(at, at + pieceBytes)))) return { lines, whole: false }
  }
  return { lines, whole: true }
}

/** As a reader of the whole text would. */
function plainSplit(bytes: Uint8Array): { readonly lines: string[]; readonly whole: boolean } {
  const lines: string[] = []
  let from = 0
  for (;;) {
    const end = bytes.indexOf(0x0a, from)
    if ((end < 0 ? bytes.length : end) - from > MAXIMUM) return { lines, whole: false }
    if (end < 0) return { lines, whole: true }
    const line = Buffer.from(bytes.slice(from, end)).toString('utf8').trim()
    if (line !== '') lines.push(line)
    from = end + 1
  }
}

export const streamLinesTarget = bytesTarget({
  name: 'stream-lines',
  about: "the stream's lines: the same whatever pieces they arrive in, never more than the bound kept",
  sources: ['sidecar/control/line-splitter.ts'],
  batch: 256,
  seeds: [
    '{"type":"ping"}\n{"type":"renew"}\n',
    `\n\r\n ${'é'.repeat(40)}\n`,
    `${'x'.repeat(64)}\n${'y'.repeat(65)}\n`,
  ].map((text) => Uint8Array.from(Buffer.from(text))),
  check(input) {
    const expected = plainSplit(input)
    for (const pieceBytes of [1, 2, 7, 63, 64, 65, input.length + 1]) {
      hold(isDeepStrictEqual(split(input, pieceBytes), expected), 'lines do not depend on the pieces they come in')
    }
    return `${expected.whole ? 'whole' : 'too-long'}-${Math.min(expected.lines.length, 4)}`
  },
})
