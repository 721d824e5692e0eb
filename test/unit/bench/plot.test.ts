import { describe, expect, it } from '@jest/globals'
import { domainOf, drawPlot, type Plot, ticksOf } from '../../bench/growth/plot.ts'

const PLOT: Plot = {
  title: 'Cost & <growth>',
  x: { label: 'peers' },
  y: { label: 'microseconds' },
  series: [
    {
      name: 'guarded',
      points: [
        [1, 200],
        [10, 200],
        [100, 400],
      ],
    },
    {
      name: 'plain',
      points: [
        [1, 50],
        [100, 50],
      ],
    },
  ],
}

const all = (svg: string, pattern: RegExp): string[] => [...svg.matchAll(pattern)].map((match) => match[1] ?? '')
const pointsOf = (svg: string) =>
  all(svg, /<polyline points="([^"]+)"/g).map((points) =>
    points.split(' ').map((point) => point.split(',').map(Number)),
  )

describe('ticks of a logarithmic axis', () => {
  it('are 1, 2 and 5 times powers of ten, as exact numbers', () => {
    expect(ticksOf({ low: 0.1, high: 20 })).toEqual([0.1, 0.2, 0.5, 1, 2, 5, 10, 20])
  })

  it('are more where all lie within one power of ten', () => {
    expect(ticksOf({ low: 2, high: 5 })).toEqual([2, 3, 4, 5])
  })

  it('are powers of ten alone where these span three or more', () => {
    expect(ticksOf({ low: 1, high: 1_000 })).toEqual([1, 10, 100, 1_000])
  })

  it('bound the domain, which holds every value and is never empty', () => {
    expect(domainOf([93.1, 345])).toEqual({ low: 50, high: 500 })
    expect(domainOf([1, 10_000])).toEqual({ low: 1, high: 10_000 })
    expect(domainOf([10])).toEqual({ low: 10, high: 20 })
  })

  it('do not exist for zero, negative numbers and nothing at all', () => {
    for (const values of [[0], [-1, 1], [Number.NaN], []]) expect(() => domainOf(values)).toThrow(RangeError)
  })
})

describe('a plot', () => {
  const svg = drawPlot(PLOT)

  it('gives equal factors equal distances on both axes, larger x to the right and larger y above', () => {
    const [guarded = [], plain = []] = pointsOf(svg)
    const [[x1 = 0, y200 = 0] = [], [x10 = 0] = [], [x100 = 0, y400 = 0] = []] = guarded
    expect(x10 - x1).toBeCloseTo(x100 - x10, 0)
    expect(x1).toBeLessThan(x10)
    const y50 = plain[0]?.[1] ?? 0
    expect(y50 - y200).toBeCloseTo(2 * (y200 - y400), 0)
    expect(y400).toBeLessThan(y200)
  })

  it('has a line, a mark for every point and a legend for every series', () => {
    expect(pointsOf(svg).map((points) => points.length)).toEqual([3, 2])
    expect(all(svg, /(<circle)/g)).toHaveLength(3 + 1)
    expect(all(svg, /(<rect)/g)).toHaveLength(2 + 1)
    expect(all(svg, />(guarded|plain)<\/text>/g)).toEqual(['guarded', 'plain'])
  })

  it('names both axes and every tick, with thousands set apart', () => {
    const wide = drawPlot({ ...PLOT, series: [{ name: 'one', points: [[1, 1], [10_000, 2]] }] }) // biome-ignore format: one line
    expect(all(wide, />([\d,.]+)<\/text>/g)).toEqual(['1', '10', '100', '1,000', '10,000', '1', '1.5', '2'])
    expect(all(svg, />(peers|microseconds)<\/text>/g)).toEqual(['peers', 'microseconds'])
  })

  it('keeps everything inside of its view', () => {
    const [width = 0, height = 0] = (/viewBox="0 0 (\d+) (\d+)"/.exec(svg) ?? []).slice(1).map(Number)
    for (const [x = 0, y = 0] of pointsOf(svg).flat()) {
      expect([x > 0, x < width, y > 0, y < height]).toEqual([true, true, true, true])
    }
  })

  it('has no ground of its own and one text colour that stands out from white and from black', () => {
    expect(svg).not.toMatch(/<rect[^>]+width="(100%|720)"/)
    const [text = ''] = all(svg, /<svg[^>]+fill="#([0-9a-f]{6})"/g)
    const [ground, ink] = [0, luminance(text)]
    expect((1 + 0.05) / (ink + 0.05)).toBeGreaterThan(3.5)
    expect((ink + 0.05) / (ground + 0.05)).toBeGreaterThan(3.5)
  })

  it('is well-formed where a title holds the characters of XML', () => {
    expect(svg).toContain('<title>Cost &amp; &lt;growth></title>')
    expect(all(svg, /<(g|svg|title|text)[ >]/g)).toHaveLength(all(svg, /<\/(g|svg|title|text)>/g).length)
  })
})

/** Relative luminance of an sRGB colour, as WCAG 2 defines it. */
function luminance(colour: string): number {
  const channel = (at: number): number => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  }
  return 0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
}
