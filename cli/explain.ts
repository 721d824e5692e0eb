import { admitPurely, assignAddresses, findUnenforced } from '../lab/bring-up.ts'
import { guardOf } from '../lab/guard.ts'
import { labInjectionSettings } from '../lab/injection.ts'
import { listConnections, listPlaces } from '../lab/judge.ts'
import { readManifests } from '../lab/manifests.ts'
import { formatMatrix } from '../lab/matrix.ts'
import { explainConnections } from '../lab/reachability.ts'
import { readArguments, requireArgument } from './arguments.ts'
import { CliError } from './errors.ts'
import { answer } from './explain/answer.ts'
import { formatAnswer } from './explain/format.ts'
import { parseQuery } from './explain/query.ts'
import { readPolicies } from './explain/rules.ts'
import { CLUSTER_OPTIONS, CLUSTER_OPTIONS_HELP, findInstallation } from './installation.ts'

export const EXPLAIN_HELP = `synguard explain --from END --to END --port PORT [--protocol TCP|UDP|SCTP] [--policies DIR] [--json]
synguard explain DIR [--json]

The first asks a cluster, with the rights that the kubeconfig gives, whether a connection comes to be, and why: what each
end decides by the code that its sidecar runs, whether it is guarded and in which mode, every policy that was considered,
and what would allow it. Nothing is sent to the Pods, and nothing is changed.

  --from END           NAMESPACE/POD or an IP address
  --to END             NAMESPACE/POD, NAMESPACE/SERVICE (NAMESPACE/svc/NAME where both are there) or an IP address
  --port PORT          of the destination, as the source connects to it: a number, or a port's name
  --protocol P         TCP (the default), UDP or SCTP
  --policies DIR       NetworkPolicies that the cluster does not have yet: a file, or a folder of YAML or JSON files. They
                       stand beside the cluster's, in place of those of the same name
${CLUSTER_OPTIONS_HELP}
  --json               {"from","to","port","protocol","allowed","ways":[…],"notes":[…]} on stdout; docs/why.md has the rest

Ends with 0 if it is allowed, with 3 if it is denied, to some endpoint of a Service at least, with 2 if it could not be
answered: bad usage, no such Pod, no API server, or rights that do not reach.

The second tells what \`synguard try DIR\` would find, from the policy engine alone: nothing is run, no root is needed, SCTP
ports are answered too. A NetworkPolicy counts only where its namespace is guarded (synguard.io/inject=enabled).

  --json   {"results":[{"from","to","port","protocol","reachable","decidedBy","reason"}]} on stdout`

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  from: { type: 'string' },
  to: { type: 'string' },
  port: { type: 'string' },
  protocol: { type: 'string' },
  policies: { type: 'string' },
  json: { type: 'boolean' },
} as const

/** The exit status where a connection is denied. */
const DENIED = 3

/** `synguard explain`; returns the exit status. */
export async function runExplain(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, OPTIONS, 'DIR')
  const { json = false, ...live } = values
  const given = Object.keys(live)
  if (given.length === 0) return explainFolder(requireArgument(positional, 'DIR'), json)
  if (positional !== undefined) {
    throw new CliError('cli-usage', `--${given[0]} asks a cluster, and "${positional}" is a folder: give one of them`)
  }
  return explainConnection(live, json)
}

async function explainConnection(
  values: { readonly [Name in keyof typeof OPTIONS]?: string },
  json: boolean,
): Promise<number> {
  const query = parseQuery(values)
  const tried = values.policies === undefined ? [] : readPolicies(values.policies)
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const { client, close } = connectTo({ kubeconfig: values.kubeconfig, context: values.context })
  try {
    const found = await answer(client, query, await findInstallation(client, values.namespace), tried)
    for (const note of found.notes) process.stderr.write(`${note}\n`)
    process.stdout.write(`${json ? JSON.stringify(found, undefined, 2) : formatAnswer(found)}\n`)
    return found.allowed ? 0 : DENIED
  } finally {
    close()
  }
}

function explainFolder(folder: string, json: boolean): number {
  const manifests = readManifests(folder)
  const settings = labInjectionSettings('/var/run/synguard/policies')
  const pods = admitPurely(assignAddresses(manifests.pods), manifests.namespaces, settings)
  for (const line of findUnenforced(manifests, pods, (pod) => guardOf(pod) !== undefined)) {
    process.stderr.write(`${line}\n`)
  }
  const places = listPlaces(pods, manifests.namespaces)
  const policies = manifests.policies.map(({ policy }) => policy)
  const results = explainConnections(listConnections(places), places, policies)
  process.stdout.write(`${json ? JSON.stringify({ results }, undefined, 2) : formatMatrix(results)}\n`)
  return 0
}
