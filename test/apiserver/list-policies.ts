/** Lists a namespace's policies as a sidecar does, and prints what it asked for and took: KUBECONFIG NAMESPACE. */
import { pino } from 'pino'
import { type ApiClient, createApiClient } from '../../kubernetes/client.ts'
import { compile } from '../../policy/compile.ts'
import { createApiSource } from '../../sidecar/control/policies/api.ts'
import { loadConnection } from '../../webhook/kubernetes/connection.ts'

const [kubeconfig = '', namespace = ''] = process.argv.slice(2)
const client = createApiClient(loadConnection(kubeconfig), { userAgent: 'synguard-test' })
const limits: string[] = []
const counting: ApiClient = {
  ...client,
  send(request) {
    limits.push(request.query?.limit ?? '')
    return client.send(request)
  },
}
const startedAt = performance.now()
const source = createApiSource({ client: counting, namespace, log: pino(), random: Math.random })
source.start({
  onChange({ policies }) {
    const milliseconds = Math.round(performance.now() - startedAt)
    const compiledAt = performance.now()
    const subject = { namespace, labels: { app: 'web' }, ports: [] }
    const { rules } = compile(policies, subject).ingress
    const compileMilliseconds = Math.round(performance.now() - compiledAt)
    // The most that it had, in mebibytes.
    const memory = Math.round(process.resourceUsage().maxRSS / 1_024)
    const took = { milliseconds, compileMilliseconds, memory, rules: rules.length }
    process.stdout.write(JSON.stringify({ policies: policies.length, limits, took }))
    process.exit(0)
  },
  onError(error) {
    throw error
  },
})
