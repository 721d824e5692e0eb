/** Which plots the measured curves give. */
import type { PeersPoint } from './peers-curve.ts'
import type { Plot, Series } from './plot.ts'
import type { PoliciesPoint } from './policies-curve.ts'
import type { RevocationPoint } from './revocation-curve.ts'

export const CURVES = ['policies', 'peers', 'revocation'] as const
export type CurveName = (typeof CURVES)[number]

export type Points = {
  readonly policies: PoliciesPoint
  readonly peers: PeersPoint
  readonly revocation: RevocationPoint
}

function series<Point>(
  name: string,
  points: readonly Point[],
  x: (point: Point) => number,
  y: (point: Point) => number,
): Series {
  return { name, points: points.map((point) => [x(point), y(point)] as const) }
}

const X_POLICIES = { label: 'NetworkPolicies in the namespace' }
const X_PEERS = { label: "peers that the server's sidecar knows" }
const X_FLOWS = { label: 'released connections to one Pod' }
const Y_SET_UP = { label: 'set-up, median, microseconds' }
const Y_RATIO = { label: 'guarded over plain TCP' }

/** By file name, without its ending. */
type Plots = Readonly<Record<string, Plot>>

function policiesPlots(points: readonly PoliciesPoint[]): Plots {
  const line = (name: string, y: (point: PoliciesPoint) => number) =>
    series(name, points, ({ policies }) => policies, y)
  return {
    policies: {
      title: 'Set-up time against policies',
      x: X_POLICIES,
      y: Y_SET_UP,
      series: [
        line('both Pods guarded', (point) => point.guardedMicroseconds),
        line('plain TCP', (point) => point.plainMicroseconds),
      ],
    },
    'policies-ratio': {
      title: 'Set-up time as a multiple of plain TCP, against policies',
      x: X_POLICIES,
      y: Y_RATIO,
      series: [
        line('median of the rounds', ({ ratio }) => ratio.median),
        line('highest round', ({ ratio }) => ratio.maximum),
        line('lowest round', ({ ratio }) => ratio.minimum),
      ],
    },
    'policies-change': {
      title: 'A change of one policy against policies',
      x: X_POLICIES,
      y: { label: 'milliseconds' },
      series: [
        line('start of a Pod until ready', (point) => point.readyMilliseconds),
        line('from the file to the end of the review', (point) => point.changeMilliseconds),
        line('slowest set-up meanwhile', (point) => point.slowestMicroseconds / 1_000),
        line('compiling alone', (point) => point.compileMilliseconds),
      ],
    },
  }
}

function peersPlots(points: readonly PeersPoint[]): Plots {
  const line = (name: string, y: (point: PeersPoint) => number) => series(name, points, ({ peers }) => peers, y)
  return {
    peers: {
      title: 'Set-up time against known peers',
      x: X_PEERS,
      y: Y_SET_UP,
      series: [
        line('guarded, one client', (point) => point.guardedMicroseconds),
        line('guarded, two clients in turn', (point) => point.turnsMicroseconds),
        line('plain TCP, one client', (point) => point.plainMicroseconds),
        line('plain TCP, two clients in turn', (point) => point.turnsPlainMicroseconds),
      ],
    },
    'peers-ratio': {
      title: 'Set-up time as a multiple of plain TCP, against known peers',
      x: X_PEERS,
      y: Y_RATIO,
      series: [
        line('one client, median of the rounds', ({ ratio }) => ratio.median),
        line('two clients in turn, median of the rounds', ({ turnsRatio }) => turnsRatio.median),
      ],
    },
    memory: {
      title: 'Memory of a sidecar against known peers',
      x: X_PEERS,
      y: { label: 'resident memory, MB' },
      series: [line("the server's sidecar", (point) => point.rssMegabytes)],
    },
  }
}

function revocationPlots(points: readonly RevocationPoint[]): Plots {
  const line = (name: string, y: (point: RevocationPoint) => number) => series(name, points, ({ flows }) => flows, y)
  return {
    revocation: {
      title: 'A change of policy against running connections',
      x: X_FLOWS,
      y: { label: 'milliseconds' },
      series: [
        line('a tenth denied: all ended at both ends', (point) =>
          Math.max(point.endedAtServerMilliseconds, point.endedAtClientsMilliseconds),
        ),
        line('none denied: from the file to the end of the review', (point) => point.changeMilliseconds),
        line('none denied: the review alone', (point) => point.reviewMilliseconds),
      ],
    },
  }
}

/** The plots of one curve. */
export function plotsOf<Name extends CurveName>(name: Name, points: readonly Points[Name][]): Plots {
  if (name === 'policies') return policiesPlots(points as readonly PoliciesPoint[])
  if (name === 'peers') return peersPlots(points as readonly PeersPoint[])
  return revocationPlots(points as readonly RevocationPoint[])
}
