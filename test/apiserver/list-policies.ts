/** Lists a namespace's policies as a sidecar does, and prints what it asked for: KUBECONFIG NAMESPACE. */
import { pino } from 'pino'
import { type ApiClient, createApiClient } from '../../kubernetes/client.ts'
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
const source = createApiSource({ client: counting, namespace, log: pino(), random: Math.random })
source.start({
  onChange({ policies }) {
    process.stdout.write(JSON.stringify({ policies: policies.length, limits }))
    process.exit(0)
  },
  onError(error) {
    throw error
  },
})
