/**
 * First contact: a connection between two Pods that never met. Both sidecars hold a packet, verify the other's WIT
 * (signature, claims, void list), write a row of the identity table and derive the pair's key.
 */
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'
import type { Field, Variant } from './field.ts'
import { connect } from './load.ts'

export interface FirstContact {
  /** From connect() to the echo of the first byte, in microseconds. */
  readonly first: number
  /** The same for the pair's next connection, by a process as new. */
  readonly next: number
}

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

/** Runs a new Pod, connects twice, and stops it; `index` names it. */
export async function measureFirstContact(field: Field, variant: Variant, index: number): Promise<FirstContact> {
  const name = `fresh-${index}`
  const client = await field.runGuarded(name)
  try {
    await introduce(client, variant.server)
    await new Promise((settled) => setTimeout(settled, SETTLE_MILLISECONDS))
    const once = async () => {
      const { succeeded, echoP50, firstError } = await connect(field.load, { ...variant.target, client }, 1, 1)
      if (succeeded !== 1) throw new Error(`a first contact failed: ${firstError}`)
      return echoP50
    }
    return { first: await once(), next: await once() }
  } finally {
    await field.stopGuarded(name)
  }
}
