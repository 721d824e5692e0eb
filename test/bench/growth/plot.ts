/** A line plot on logarithmic axes as SVG. Pure: the same plot gives the same text. */

export interface Axis {
  /** What is shown, with its unit. */
  readonly label: string
}

export interface Series {
  readonly name: string
  /** x and y, both above 0, in ascending order of x. */
  readonly points: readonly (readonly [x: number, y: number])[]
}

export interface Plot {
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  readonly series: readonly Series[]
}

const WIDTH = 720
const HEIGHT = 400
const LEFT = 84
const RIGHT = 40
const TOP = 48
const BOTTOM = 56
const LEGEND_ROW = 20
const CHARACTER = 7.2

/** Of middle lightness: they stand out from white and from black, and the page decides which of them lies behind. */
const TEXT = '#7a808a'
const GRID = '#7a808a'
const COLOURS = ['#2f81d7', '#d9730d', '#2f9e5a', '#a860d8'] as const
/** Not by colour alone: series differ by the shape of their marks too. */
const MARKS: readonly ((x: number, y: number) => string)[] = [
  (x, y) => `<circle cx="${x}" cy="${y}" r="4"/>`,
  (x, y) => `<rect x="${round(x - 4)}" y="${round(y - 4)}" width="8" height="8"/>`,
  (x, y) => `<path d="M${x} ${round(y - 5)}l5 9h-10z"/>`,
  (x, y) => `<path d="M${x} ${round(y - 5)}l5 5l-5 5l-5-5z"/>`,
]

const round = (value: number): number => Math.round(value * 10) / 10

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')

const text = (x: number, y: number, anchor: string, content: string, extra = ''): string =>
  `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}"${extra}>${escapeXml(content)}</text>`

interface Domain {
  readonly low: number
  readonly high: number
}

/** 1, 2 and 5 times powers of ten; more within one power of ten, and powers of ten alone where these span three. */
export function ticksOf({ low, high }: Domain): number[] {
  const span = high / low
  const factors = span >= 1_000 ? [1] : span > 10 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]
  const ticks: number[] = []
  for (let exponent = Math.floor(Math.log10(low)) - 1; exponent <= Math.ceil(Math.log10(high)); exponent++) {
    for (const factor of factors) {
      const tick = Number(`${factor}e${exponent}`)
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick)
    }
  }
  return ticks
}

/** The smallest domain between two ticks that holds all values. Throws RangeError for values that have no logarithm. */
export function domainOf(values: readonly number[]): Domain {
  if (values.length === 0 || !values.every((value) => value > 0 && Number.isFinite(value))) {
    throw new RangeError('a logarithmic axis needs finite values above 0')
  }
  const [least, most] = [Math.min(...values), Math.max(...values)]
  const wide = ticksOf({ low: least / 10, high: most * 10 })
  const low = wide.filter((tick) => tick <= least * 1.001).at(-1) ?? least
  const high = wide.find((tick) => tick >= most * 0.999 && tick > low) ?? most
  return { low, high }
}

function scale({ low, high }: Domain, from: number, to: number): (value: number) => number {
  const span = Math.log(high / low)
  return (value) => round(from + ((to - from) * Math.log(value / low)) / span)
}

const numeral = (value: number): string => value.toLocaleString('en-US', { maximumFractionDigits: 6 })

/** The plot as an SVG document with a transparent ground. Throws RangeError for a value that has no logarithm. */
export function drawPlot(plot: Plot): string {
  const points = plot.series.flatMap((series) => series.points)
  const [xs, ys] = [domainOf(points.map(([x]) => x)), domainOf(points.map(([, y]) => y))]
  const top = TOP + plot.series.length * LEGEND_ROW
  const [right, bottom] = [WIDTH - RIGHT, top + HEIGHT - TOP - BOTTOM]
  const [toX, toY] = [scale(xs, LEFT, right), scale(ys, bottom, top)]
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + BOTTOM}" role="img" font-family="sans-serif" font-size="13" fill="${TEXT}">`,
    `<title>${escapeXml(plot.title)}</title>`,
    text(LEFT, 26, 'start', plot.title, ' font-size="16" font-weight="bold"'),
    ...plot.series.map((series, index) => legend(series, index)),
    ...ticksOf(xs).flatMap((tick) => [
      grid(toX(tick), top, toX(tick), bottom),
      text(toX(tick), bottom + 18, 'middle', numeral(tick)),
    ]),
    ...ticksOf(ys).flatMap((tick) => [
      grid(LEFT, toY(tick), right, toY(tick)),
      text(LEFT - 8, toY(tick) + 4, 'end', numeral(tick)),
    ]),
    text((LEFT + right) / 2, bottom + 42, 'middle', plot.x.label),
    text(0, 0, 'middle', plot.y.label, ` transform="translate(18 ${round((top + bottom) / 2)}) rotate(-90)"`),
    ...plot.series.map((series, index) => curve(series, index, toX, toY)),
    '</svg>',
  ]
  return `${lines.join('\n')}\n`
}

const grid = (x1: number, y1: number, x2: number, y2: number): string =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${GRID}" stroke-opacity="0.35"/>`

const colourOf = (index: number): string => COLOURS[index % COLOURS.length] ?? TEXT
const markOf = (index: number, x: number, y: number): string => MARKS[index % MARKS.length]?.(x, y) ?? ''

function legend({ name }: Series, index: number): string {
  const y = TOP + index * LEGEND_ROW
  const mark = `<g fill="${colourOf(index)}">${markOf(index, LEFT + 8, y - 4)}</g>`
  return mark + text(LEFT + 8 + 2 * CHARACTER, y, 'start', name)
}

function curve({ points }: Series, index: number, toX: (x: number) => number, toY: (y: number) => number): string {
  const placed = points.map(([x, y]) => [toX(x), toY(y)] as const)
  const line = placed.map(([x, y]) => `${x},${y}`).join(' ')
  const marks = placed.map(([x, y]) => markOf(index, x, y)).join('')
  const colour = colourOf(index)
  return `<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"/><g fill="${colour}">${marks}</g>`
}
