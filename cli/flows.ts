import type { V1Pod } from '@kubernetes/client-node'
import { PATH_FLOWS } from '../api/reports.ts'
import { isGuarded } from '../webhook/admission/pod.ts'
import { readArguments, requireArgument } from './arguments.ts'
import { lookAt } from './check/look.ts'
import { CliError } from './errors.ts'
import { formatFlows } from './reports/format.ts'
import { parseFlowsReport } from './reports/parse.ts'
import { readReport } from './reports/read.ts'

export const FLOWS_HELP = `synguard flows NAMESPACE/POD [--json] [--kubeconfig FILE] [--context NAME]

The connections that the Pod's sidecar released and that run, with the peer's identity, bytes, age and the policy and rule
that allow them now, and what was refused last. At most 1,000 connections are listed.

Bytes are payload of TCP, as its sockets count; of other protocols those of packets, where the kernel counts them
(net.netfilter.nf_conntrack_acct), else none. The age is known of the last 16,384 connections of each direction.

  --kubeconfig FILE    as kubectl's; also $KUBECONFIG
  --context NAME       one of its contexts
  --json               {"pod","mode","flows":[...],"total","accounting","refusals":[...]} on stdout

Needs to get the Pod, and to get and create pods/portforward, in its namespace: sidecars tell on loopback alone.

Ends with 0; with 1 if the sidecar could not be asked; with 2 for bad usage, no such Pod, one without a sidecar, no API
server, or rights that do not reach.`

const OPTIONS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  json: { type: 'boolean' },
} as const

const POD = /^(?<namespace>[a-z0-9-]{1,63})\/(?:pod\/)?(?<name>[a-z0-9.-]{1,253})$/

/** `synguard flows`; returns the exit status. */
export async function runFlows(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, OPTIONS, 'NAMESPACE/POD')
  const given = requireArgument(positional, 'NAMESPACE/POD')
  const { namespace, name } = POD.exec(given)?.groups ?? {}
  if (namespace === undefined || name === undefined) throw new CliError('cli-usage', `"${given}" is not NAMESPACE/POD`)
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const { createPortForward } = await import('./check/port-forward.ts')
  const { client, config, close } = connectTo(values)
  try {
    const found = await lookAt<V1Pod>(client, `/api/v1/namespaces/${namespace}/pods/${name}`)
    if (!found.seen) throw new CliError('report-unseen', `Pod ${namespace}/${name} cannot be seen: ${found.reason}`)
    const pod = found.value
    if (pod === undefined) throw new CliError('report-unknown', `there is no Pod ${namespace}/${name}`)
    if (pod.spec === undefined || !isGuarded(pod.spec)) {
      throw new CliError('report-unknown', `Pod ${namespace}/${name} has no sidecar`)
    }
    const report = await readReport(createPortForward(config), pod, PATH_FLOWS, parseFlowsReport).catch((error) => {
      throw new CliError('report-unanswered', `${namespace}/${name} could not be read: ${(error as Error).message}`)
    })
    const json = () => JSON.stringify(report, undefined, 2)
    process.stdout.write(`${values.json === true ? json() : formatFlows(report, Date.now())}\n`)
    return 0
  } finally {
    close()
  }
}
