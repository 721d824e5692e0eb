import { readArguments, requireArgument } from './arguments.ts'
import { CliError } from './errors.ts'
import { CLUSTER_OPTIONS, CLUSTER_OPTIONS_HELP, findInstallation } from './installation.ts'
import { createRevocations, formatRevoked, type Named, type Revocations } from './revoke/revocations.ts'

export const REVOKE_HELP = `synguard revoke NAMESPACE/POD [--reason TEXT]
synguard revoke --undo NAMESPACE/POD [--reason TEXT]
synguard revoke --list [--json]

Declares the identity of a Pod void: within seconds every sidecar refuses it, what runs with it ends, and the Pod gets no
other until --undo. That is this very Pod: one that is made anew under its name is another. docs/revocation.md has the rest.

  --undo               the Pod gets identities again; those until now stay void
  --list               the Pods that are revoked, since when and why
  --reason TEXT        stands in the list, in the webhook's log and in an Event of the Pod
${CLUSTER_OPTIONS_HELP}
  --json               with --list: {"revoked":[{"pod","uid","since","reason","ended"}]} on stdout

Needs the Role synguard-revoker in the installation's namespace, and to read the Pod. Ends with 0 once it is done, with 1
if no replica of the webhook answered in time, with 2 for bad usage, no such Pod, no API server, or rights that do not reach.`

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  undo: { type: 'boolean' },
  list: { type: 'boolean' },
  reason: { type: 'string' },
  json: { type: 'boolean' },
} as const

const POD = /^(?<namespace>[a-z0-9-]{1,63})\/(?:pod\/)?(?<name>[a-z0-9.-]{1,253})$/

function parsePod(text: string): Named {
  const { namespace, name } = POD.exec(text)?.groups ?? {}
  if (namespace === undefined || name === undefined) throw new CliError('cli-usage', `"${text}" is not NAMESPACE/POD`)
  return { namespace, name }
}

/** `synguard revoke`; returns the exit status. */
export async function runRevoke(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, OPTIONS, 'NAMESPACE/POD')
  const { list = false, undo = false, json = false, reason = '' } = values
  if (list && (positional !== undefined || undo || reason !== '')) {
    throw new CliError('cli-usage', '--list goes with --json alone')
  }
  if (json && !list) throw new CliError('cli-usage', '--json goes with --list')
  const pod = list ? undefined : parsePod(requireArgument(positional, 'NAMESPACE/POD'))
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const { client, close } = connectTo({ kubeconfig: values.kubeconfig, context: values.context })
  try {
    const system = await findInstallation(client, values.namespace)
    const revocations = createRevocations({ client, namespace: system })
    process.stdout.write(`${await run(revocations, pod, { undo, reason, json })}\n`)
    return 0
  } finally {
    close()
  }
}

async function run(
  revocations: Revocations,
  pod: Named | undefined,
  { undo, reason, json }: { readonly undo: boolean; readonly reason: string; readonly json: boolean },
): Promise<string> {
  if (pod === undefined) {
    const revoked = await revocations.list()
    return json ? JSON.stringify({ revoked }, undefined, 2) : formatRevoked(revoked)
  }
  const name = `${pod.namespace}/${pod.name}`
  if (!undo) {
    const { since } = await revocations.revoke(pod, reason)
    return `${name} is revoked since ${since}; synguard revoke --undo ${name} takes it back`
  }
  const wasRevoked = await revocations.restore(pod, reason)
  if (!wasRevoked) return `${name} is not revoked`
  return `${name} gets identities again: its sidecar asks for one within half a minute`
}
