import { readArguments } from './arguments.ts'
import { judge } from './check/checks.ts'
import { gatherFacts, withoutPods } from './check/gather.ts'
import { formatFindings, resultOf, STATUS_OF } from './check/report.ts'
import { runPodsIn } from './check/run-pods.ts'

export const CHECK_HELP = `synguard check [--json] [--no-pods] [--image IMAGE] [-n NAMESPACE] [--kubeconfig FILE] [--context NAME]

Looks at a cluster before and after the installation of Synguard, with the rights that the kubeconfig gives, and prints
one line a check:

  ok      as it should be
  fix     what is wrong, and what mends it
  unseen  could not be seen, and why: most often a right that you lack
  note    worth knowing, nothing to mend

Nothing is changed, but Pods are run: in a namespace of their own, which is removed in the end, one per kernel that the
nodes have, for what only a Pod can find out: whether the rules can be installed, whether a guarded Pod starts, and which
addresses Pods are seen by. No Secret is read.

  --no-pods            runs no Pods
  --image IMAGE        the sidecar's image for them, before there is an installation with settings
  -n, --namespace NS   the installation's namespace (as the webhook configuration says, or synguard)
  --kubeconfig FILE    as kubectl's; also $KUBECONFIG
  --context NAME       one of its contexts
  --json               {"result","findings":[{"check","status","message","fix","namespace"}]} on stdout

Ends with 0 if nothing is to be mended and Synguard is installed, with 3 if nothing is to be mended and it is not, with 1
if something is to be mended, with 2 if it could not look: bad usage, no API server, or rights to see nothing at all.`

const OPTIONS = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n' },
  image: { type: 'string' },
  'no-pods': { type: 'boolean' },
  json: { type: 'boolean' },
} as const

const note = (line: string) => process.stderr.write(`${line}\n`)

/** `synguard check`; returns the exit status. */
export async function runCheck(args: readonly string[]): Promise<number> {
  const { values } = readArguments(args, OPTIONS)
  const { kubeconfig, context, namespace, image } = values
  // The Kubernetes client takes a second to load, which no other command needs.
  const { connectTo } = await import('./check/connect.ts')
  const { createPortForward } = await import('./check/port-forward.ts')
  const cluster = connectTo({ kubeconfig, context })
  try {
    const facts = await gatherFacts({
      client: cluster.client,
      openPort: createPortForward(cluster.config),
      ...(namespace !== undefined && { namespace }),
      runPods: values['no-pods'] === true ? withoutPods : runPodsIn({ client: cluster.client, image, note }),
    })
    const findings = judge(facts)
    const result = resultOf(facts, findings)
    const json = () => JSON.stringify({ result, findings }, undefined, 2)
    process.stdout.write(`${values.json === true ? json() : formatFindings(findings, result)}\n`)
    return STATUS_OF[result]
  } finally {
    cluster.close()
  }
}
