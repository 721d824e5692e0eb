import { admitPurely, assignAddresses, findUnenforced } from '../lab/bring-up.ts'
import { guardOf } from '../lab/guard.ts'
import { labInjectionSettings } from '../lab/injection.ts'
import { listConnections, listPlaces } from '../lab/judge.ts'
import { readManifests } from '../lab/manifests.ts'
import { formatMatrix } from '../lab/matrix.ts'
import { explainConnections } from '../lab/reachability.ts'
import { readArguments, requireArgument } from './arguments.ts'

export const EXPLAIN_HELP = `synguard explain DIR [--json]

What \`synguard try DIR\` would find, from the policy engine alone: nothing is run, no root is needed, SCTP ports are
answered too. A NetworkPolicy counts only where its namespace is guarded (synguard.io/inject=enabled).

  --json   {"results":[{"from","to","port","protocol","reachable","decidedBy","reason"}]} on stdout`

/** `synguard explain`; returns the exit status. */
export async function runExplain(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, { json: { type: 'boolean' } } as const, 'DIR')
  const manifests = readManifests(requireArgument(positional, 'DIR'))
  const settings = labInjectionSettings('/var/run/synguard/policies')
  const pods = admitPurely(assignAddresses(manifests.pods), manifests.namespaces, settings)
  for (const line of findUnenforced(manifests, pods, (pod) => guardOf(pod) !== undefined)) {
    process.stderr.write(`${line}\n`)
  }
  const places = listPlaces(pods, manifests.namespaces)
  const policies = manifests.policies.map(({ policy }) => policy)
  const results = explainConnections(listConnections(places), places, policies)
  process.stdout.write(`${values.json === true ? JSON.stringify({ results }, undefined, 2) : formatMatrix(results)}\n`)
  return 0
}
