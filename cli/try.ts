import { bringUp, findUnenforced, fixedNetworks } from '../lab/bring-up.ts'
import { findDifferences, readExpectations } from '../lab/expectation.ts'
import { guardOf } from '../lab/guard.ts'
import { listConnections, listPlaces } from '../lab/judge.ts'
import { createLab } from '../lab/lab.ts'
import { readManifests } from '../lab/manifests.ts'
import { formatMatrix } from '../lab/matrix.ts'
import { isDisagreement, tryConnections } from '../lab/reachability.ts'
import { stopOnSignals } from '../lab/run.ts'
import { readArguments, requireArgument } from './arguments.ts'
import { CliError } from './errors.ts'

export const TRY_HELP = `synguard try DIR [--json] [--expect FILE]

Brings the manifests of DIR (*.yaml: Namespaces, Pods, workloads, Services, NetworkPolicies) up on this machine, Pods as
network namespaces with the sidecar that the webhook gives them, connects every Pod, the node and an address outside of
the cluster to every declared TCP and UDP port of every other Pod, and prints who reached whom and which policy decided.
Namespaces labelled synguard.io/inject=enabled are guarded. A container without a command is stood for by a server on its
declared ports; commands run on this machine's files (read-only), images are not used. Needs root; leaves nothing behind.

  --json         {"results":[{"from","to","port","protocol","reachable","decidedBy","reason"}]} on stdout
  --expect FILE  compares with a JSON array of {from, to, port, protocol, reachable}
  --mtu BYTES    MTU of all links (default 1500)

Ends with 0; with 1 where an expectation is not met, or the network and the policy engine disagree; with 2 for bad input.`

const note = (line: string) => process.stderr.write(`${line}\n`)

/** IPv6 needs 1280; 65,535 is the largest packet. */
function readMtu(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const bytes = Number(text)
  if (!Number.isInteger(bytes) || bytes < 1280 || bytes > 65_535) {
    throw new CliError('cli-usage', `--mtu ${text} must be a whole number from 1280 to 65535`)
  }
  return bytes
}

/** `synguard try`; returns the exit status. */
export async function runTry(args: readonly string[]): Promise<number> {
  const options = {
    json: { type: 'boolean' },
    expect: { type: 'string' },
    mtu: { type: 'string' },
  } as const
  const { values, positional } = readArguments(args, options, 'DIR')
  const directory = requireArgument(positional, 'DIR')
  const manifests = readManifests(directory)
  const expectations = values.expect === undefined ? [] : readExpectations(values.expect)
  const mtuBytes = readMtu(values.mtu)

  const lab = await createLab({
    ...(mtuBytes !== undefined && { mtuBytes }),
    podNetworks: fixedNetworks(manifests.pods),
    onProgress: note,
  })
  stopOnSignals(lab.stop)
  try {
    const pods = await bringUp(lab, manifests)
    for (const line of findUnenforced(manifests, pods, (pod) => guardOf(pod) !== undefined)) note(line)
    const places = listPlaces(pods, manifests.namespaces)
    const connections = listConnections(places).filter(({ protocol }) => protocol !== 'SCTP')
    note(`trying ${connections.length} connections`)
    const policies = manifests.policies.map(({ policy }) => policy)
    const results = await tryConnections(lab, connections, places, policies)
    const differences = findDifferences(results, expectations)
    if (values.json === true) {
      const compared = values.expect === undefined ? {} : { matches: differences.length === 0, differences }
      process.stdout.write(`${JSON.stringify({ results, ...compared }, undefined, 2)}\n`)
    } else process.stdout.write(`${formatMatrix(results)}\n`)
    for (const difference of differences) note(`difference: ${difference}`)
    return differences.length > 0 || results.some(isDisagreement) ? 1 : 0
  } finally {
    await lab.stop()
  }
}
