/**
 * The three-tier example on this machine: who reaches whom, by which identities, what a handshake costs against plain
 * TCP, what a policy change does to an open connection, and what a transfer queues. `--json` for programs.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { V1Pod } from '@kubernetes/client-node'
import { SynguardError } from '../api/errors.ts'
import { bringUp } from './bring-up.ts'
import { measureHandshakes, readSeenIdentities, revokeOpenConnection, transferBulk } from './demo-steps.ts'
import { findDifferences, parseExpectations } from './expectation.ts'
import { listConnections, listPlaces } from './judge.ts'
import { createLab, type Lab } from './lab.ts'
import { readManifests } from './manifests.ts'
import { formatMatrix } from './matrix.ts'
import type { RunningPod } from './pod.ts'
import { isDisagreement, tryConnections } from './reachability.ts'
import { stopOnSignals } from './run.ts'
import { CHECKOUT } from './sandbox.ts'

const EXAMPLE = join(CHECKOUT, 'examples', 'three-tier')
const GIBIBYTE = 1 << 30
/** A handshake queues two packets at the client and three at the server; a few more where a segment overtakes the proof. */
const MAX_QUEUED_BY_TRANSFER = 20

/** A pair in a namespace that nobody guards: the plain TCP to compare with. */
function plainPod(name: string): V1Pod {
  return {
    metadata: { namespace: 'plain', name, labels: {}, annotations: {} },
    spec: { containers: [{ name: 'main', image: 'none', ports: [{ containerPort: 80, protocol: 'TCP' }] }] },
  }
}

function requirePod(lab: Lab, key: string): RunningPod {
  const pod = lab.pods.get(key)
  if (pod === undefined) throw new Error(`${key} does not run`)
  return pod
}

async function runDemo(lab: Lab, say: (line: string) => void) {
  const manifests = readManifests(EXAMPLE)
  const pods = await bringUp(lab, manifests)
  await lab.putNamespace({ metadata: { name: 'plain', labels: { 'kubernetes.io/metadata.name': 'plain' } } })
  const [plainClient, plainServer] = await Promise.all(
    ['client', 'server'].map(async (name) => await lab.runPod(await lab.admitPod(plainPod(name)))),
  )
  if (plainClient === undefined || plainServer === undefined) throw new Error('the plain Pods do not run')

  say('\nWho reaches whom')
  const places = listPlaces(pods, manifests.namespaces)
  const policies = manifests.policies.map(({ policy }) => policy)
  const results = await tryConnections(lab, listConnections(places), places, policies)
  const file = join(EXAMPLE, 'expect.json')
  const differences = findDifferences(results, parseExpectations(readFileSync(file, 'utf8'), file))
  say(formatMatrix(results))
  for (const difference of differences) say(`difference: ${difference}`)

  say('\nIdentities that each sidecar verified at the handshake')
  const guardedPods = pods.map(({ metadata }) => requirePod(lab, `${metadata?.namespace}/${metadata?.name}`))
  const identities = Object.fromEntries(
    guardedPods.map((pod) => [`${pod.pod.metadata?.namespace}/${pod.pod.metadata?.name}`, readSeenIdentities(pod)]),
  )
  for (const [pod, seen] of Object.entries(identities)) say(`${pod} saw ${seen.join(', ') || 'nobody'}`)

  const guarded = { client: requirePod(lab, 'frontend/web-0'), server: requirePod(lab, 'backend/store-0'), port: 6379 }
  say('\nFrom connect to the first byte, frontend to backend, against plain TCP (medians of interleaved rounds)')
  const handshake = await measureHandshakes({ client: plainClient, server: plainServer, port: 80 }, guarded)
  say(`plain ${handshake.plainMicroseconds} us, guarded ${handshake.guardedMicroseconds} us: ${handshake.ratio} times`)

  say('\n1 GiB, frontend to backend')
  const transfer = await transferBulk(guarded, GIBIBYTE)
  say(`${transfer.megabytesPerSecond} MB/s; ${transfer.queuedPackets} packets went through a queue`)

  say('\nThe backend stops admitting the frontend while a connection is open')
  const denial = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { namespace: 'backend', name: 'from-frontend' },
    spec: { podSelector: {}, policyTypes: ['Ingress'] },
  }
  const revocation = await revokeOpenConnection(guarded, () => lab.putPolicy('backend', 'from-frontend', denial))
  say(
    `after ${revocation.clientMilliseconds} ms the frontend's end is told ${revocation.client}, the backend's ${revocation.server}`,
  )

  const matches =
    differences.length === 0 &&
    !results.some(isDisagreement) &&
    revocation.bothEnded &&
    transfer.queuedPackets <= MAX_QUEUED_BY_TRANSFER &&
    (identities['backend/store-0'] ?? []).includes('frontend/web-0')
  return { results, differences, identities, handshake, transfer, revocation, matches }
}

async function main(): Promise<number> {
  const isJson = process.argv.includes('--json')
  const start = Date.now()
  const say = (line: string) => (isJson ? process.stderr : process.stdout).write(`${line}\n`)
  const lab = await createLab({ onProgress: (line) => process.stderr.write(`${line}\n`) })
  stopOnSignals(lab.stop)
  try {
    const outcome = await runDemo(lab, say)
    const seconds = Math.round((Date.now() - start) / 100) / 10
    if (isJson) process.stdout.write(`${JSON.stringify({ ...outcome, seconds }, undefined, 2)}\n`)
    say(`\n${outcome.matches ? 'All as expected' : 'NOT as expected'}, after ${seconds} s`)
    return outcome.matches ? 0 : 1
  } finally {
    await lab.stop()
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  const isKnown = error instanceof SynguardError
  process.stderr.write(`synguard demo: ${isKnown ? error.message : error instanceof Error ? error.stack : error}\n`)
  process.exitCode = isKnown && error.code === 'lab-needs-root' ? 2 : 1
}
