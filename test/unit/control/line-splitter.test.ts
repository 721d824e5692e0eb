import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { createLineSplitter } from '../../../sidecar/control/line-splitter.ts'

function split(chunks: readonly Buffer[], maxBytes = 1000): { lines: string[]; ok: boolean } {
  const lines: string[] = []
  const splitter = createLineSplitter(maxBytes, (line) => void lines.push(line))
  return { ok: chunks.every((chunk) => splitter.push(chunk)), lines }
}

describe('the line splitter', () => {
  it('gives the same lines however the bytes are cut, within characters too', () => {
    const line = fc.string({ unit: 'binary', maxLength: 20 }).map((text) => `x${text.replace(/\s/g, '')}x`)
    fc.assert(
      fc.property(fc.array(line), fc.array(fc.integer({ min: 0, max: 400 })), (lines, cuts) => {
        const whole = Buffer.from(lines.map((text) => `${text}\n`).join(''))
        const at = [0, ...cuts.filter((cut) => cut < whole.length).sort((a, b) => a - b), whole.length]
        const chunks = at.slice(1).map((end, index) => whole.subarray(at[index], end))
        expect(split(chunks)).toEqual({
          lines: Buffer.from(lines.join('\n')).toString().split('\n').filter(Boolean),
          ok: true,
        })
      }),
    )
  })

  it('keeps an unfinished line to itself and leaves empty ones out', () => {
    expect(split([Buffer.from('a\n\n\r\nb\r\nun'), Buffer.from('finished')])).toEqual({ lines: ['a', 'b'], ok: true })
  })

  it('refuses a line beyond the bound, in one chunk or in many', () => {
    expect(split([Buffer.from(`${'x'.repeat(10)}\n`)], 10)).toEqual({ lines: ['x'.repeat(10)], ok: true })
    expect(split([Buffer.from(`${'x'.repeat(11)}\n`)], 10)).toEqual({ lines: [], ok: false })
    expect(split([Buffer.from('x'.repeat(6)), Buffer.from('x'.repeat(6))], 10)).toEqual({ lines: [], ok: false })
  })
})
