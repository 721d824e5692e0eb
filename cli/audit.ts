import type { V1Pod } from '@kubernetes/client-node'
import { type AuditReport, PATH_AUDIT } from '../api/reports.ts'
import type { ApiClient } from '../kubernetes/client.ts'
import { isGuarded } from '../webhook/admission/pod.ts'
import { readArguments, requireArgument } from './arguments.ts'
import { eachOf, lookThrough } from './check/look.ts'
import type { OpenPort } from './check/serving.ts'
import { CliError } from './errors.ts'
import { type Audit, type AuditResult, mergeAudit, type Unread } from './reports/audit.ts'
import { formatAudit } from './reports/format.ts'
import { parseAuditReport } from './reports/parse.ts'
import { readReport, reportedPodOf } from './reports/read.ts'

export const AUDIT_HELP = `synguard audit NAMESPACE [--json] [--kubeconfig FILE] [--context NAME]

What its Pods would refuse if they enforced: the connections that they let go on since their sidecars began to count, and
those that run, which the policies in force deny. By source, destination and port, with the policies that isolate the end
that denies; of a denial no rule of theirs matches. What a changed policy allows by now is left out. Nothing is changed.

  synguard.io/mode=audit at the namespace first, then wait for as long as its connections take to come round.

  --kubeconfig FILE    as kubectl's; also $KUBECONFIG
  --context NAME       one of its contexts
  --json               {"namespace","result","groups":[{"from","to","protocol","port","ends"}],"unread",...} on stdout

Needs to list Pods, and to get and create pods/portforward, in that namespace: sidecars tell on loopback alone.

Ends with 0 if nothing would be refused, with 1 if something would, with 3 if nothing was seen, but not all could be: a
Pod that could not be read, or is off, or that had more to tell than it keeps; with 2 for bad usage, no API server, or
rights that do not reach.`

const STATUS_OF: Readonly<Record<AuditResult, number>> = { nothing: 0, refuses: 1, unknown: 3 }

/** Port-forwards at once: each is a connection to the API server, and one more to a kubelet. */
const WIDTH = 8

const OPTIONS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  json: { type: 'boolean' },
} as const

/** `synguard audit`; returns the exit status. */
export async function runAudit(args: readonly string[]): Promise<number> {
  const { values, positional } = readArguments(args, OPTIONS, 'NAMESPACE')
  const namespace = requireArgument(positional, 'NAMESPACE')
  if (!/^[a-z0-9-]{1,63}$/.test(namespace)) throw new CliError('cli-usage', `"${namespace}" is no namespace's name`)
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const { createPortForward } = await import('./check/port-forward.ts')
  const { client, config, close } = connectTo(values)
  try {
    const audit = await auditNamespace(client, createPortForward(config), namespace)
    const json = () => JSON.stringify(audit, undefined, 2)
    process.stdout.write(`${values.json === true ? json() : formatAudit(audit, Date.now())}\n`)
    return STATUS_OF[audit.result]
  } finally {
    close()
  }
}

/** Asks the sidecars of all Pods of the namespace that have one and are not over. */
async function auditNamespace(client: ApiClient, openPort: OpenPort, namespace: string): Promise<Audit> {
  const found = await lookThrough<V1Pod>(client, `/api/v1/namespaces/${namespace}/pods`)
  if (!found.seen) throw new CliError('report-unseen', `the Pods of ${namespace} cannot be seen: ${found.reason}`)
  const guarded = found.value.filter(
    ({ spec, status }) =>
      spec !== undefined && isGuarded(spec) && !['Succeeded', 'Failed'].includes(status?.phase ?? ''),
  )
  if (guarded.length === 0) throw new CliError('report-unknown', `no Pod in ${namespace} has a sidecar`)
  const asked = await eachOf(guarded, WIDTH, async (pod): Promise<AuditReport | Unread> => {
    try {
      return await readReport(openPort, pod, PATH_AUDIT, parseAuditReport)
    } catch (error) {
      const { name } = reportedPodOf(pod)
      return { pod: `${namespace}/${name}`, reason: (error as Error).message }
    }
  })
  return mergeAudit(
    namespace,
    asked.flatMap((one) => ('denials' in one ? [one] : [])),
    asked.flatMap((one) => ('denials' in one ? [] : [one])),
  )
}
