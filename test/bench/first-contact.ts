/**
 * First contact: a connection between two Pods that never met. Both sidecars hold a packet, verify the other's WIT
 * (signature, claims, void list), write a row of the identity table and derive the pair's key.
 */
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'
import type { Field, Variant } from './field.ts'
import { connect } from './load.ts'

/** From connect() to the echo of the first byte, in microseconds, each by a program as new. */
export interface FirstContact {
  /** A new Pod's first connection of all: its sidecar has done none of this before. */
  readonly fresh: number
  /** The first connection of two Pods whose sidecars are both in use. */
  readonly first: number
  /** The next one of the same two. */
  readonly next: number
}

/** After so many connections the code that packets pass is compiled. */
const TRAINING_CONNECTIONS = 1_000
/** Once ready, a Pod's sidecar still has a few things to do; nobody's first connection waits for those. */
const SETTLE_MILLISECONDS = 300

async function linkAddress({ network }: RunningPod): Promise<string> {
  const [link] = JSON.parse(await runCommand('ip', ['-n', network.netns, '-json', 'link', 'show', 'dev', 'eth0']))
  return link.address
}

/** Tells two Pods each other's link address: ARP is no part of an identity's first contact. */
async function introduce(a: RunningPod, b: RunningPod): Promise<void> {
  for (const [at, peer] of [
    [a, b],
    [b, a],
  ] as const) {
    const neighbour = [peer.network.addresses[0] ?? '', 'lladdr', await linkAddress(peer)]
    await runCommand('ip', [
      '-n',
      at.network.netns,
      'neigh',
      'replace',
      ...neighbour,
      'dev',
      'eth0',
      'nud',
      'permanent',
    ])
  }
}

/** Runs a new Pod, named by `index`: it meets the trainer, warms up there, meets the variant's server, and stops. */
export async function measureFirstContact(
  { load, runGuarded, stopGuarded }: Field,
  variant: Variant,
  trainer: RunningPod,
  index: number,
): Promise<FirstContact> {
  const name = `fresh-${index}`
  const client = await runGuarded(name)
  const timed = async (server: RunningPod, count = 1): Promise<number> => {
    const target = { client, address: server.network.addresses[0] ?? '', port: variant.target.port }
    const { succeeded, echoP50, firstError } = await connect(load, target, count, 1)
    if (succeeded !== count) throw new Error(`a first contact failed: ${firstError}`)
    return echoP50
  }
  try {
    for (const server of [trainer, variant.server]) await introduce(client, server)
    await new Promise((settled) => setTimeout(settled, SETTLE_MILLISECONDS))
    const fresh = await timed(trainer)
    await timed(trainer, TRAINING_CONNECTIONS)
    return { fresh, first: await timed(variant.server), next: await timed(variant.server) }
  } finally {
    await stopGuarded(name)
  }
}
