/** Another mutating webhook, as a mesh or a vault has one: it puts containers of its own into every Pod. */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { createServingAuthority, issueServingCertificate } from '../../certs/serving.ts'
import type { ApiClient } from '../../kubernetes/client.ts'

const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

export interface OtherInjector {
  /** How often it was asked. */
  calls(): number
  stop(): Promise<void>
}

const LATE: V1Container = { name: 'late', image: 'late:1' }
const EAGER: V1Container = { name: 'eager', image: 'eager:1' }

/**
 * Starts it for Pods of namespaces with the label `other: enabled`. The API server asks webhooks in the order of their
 * names. It puts an init container in front of all others, and a container behind them.
 */
export async function startOtherInjector(admin: ApiClient, name: string): Promise<OtherInjector> {
  const times = { now: Math.floor(Date.now() / 1_000), lifetimeSeconds: 3_600 }
  const ca = createServingAuthority(times)
  const certificate = issueServingCertificate(ca, { names: ['localhost'], addresses: ['127.0.0.1'], ...times })
  let calls = 0
  const server = createServer(
    { cert: certificate.certificatePem, key: certificate.privateKeyPem },
    async (request, response) => {
      calls++
      const review = JSON.parse((await request.toArray()).join('')) as { request: { uid: string; object: V1Pod } }
      const { uid, object } = review.request
      const patch = Buffer.from(JSON.stringify(patchOf(object))).toString('base64')
      const answer = { uid, allowed: true, patchType: 'JSONPatch', patch }
      response.end(JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer }))
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const webhook = {
    name: 'pods.other.test',
    admissionReviewVersions: ['v1'],
    sideEffects: 'None',
    reinvocationPolicy: 'IfNeeded',
    namespaceSelector: { matchLabels: { other: 'enabled' } },
    clientConfig: {
      url: `https://127.0.0.1:${port}/`,
      caBundle: Buffer.from(ca.certificatePem).toString('base64'),
    },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE'] }],
  }
  await admin.send({ method: 'POST', path: CONFIGURATIONS, body: { metadata: { name }, webhooks: [webhook] } })
  return {
    calls: () => calls,
    async stop() {
      await admin.send({ method: 'DELETE', path: `${CONFIGURATIONS}/${name}` })
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function patchOf({ spec }: V1Pod) {
  const { containers = [], initContainers = [] } = spec ?? {}
  const foreign = initContainers.filter(({ name }) => name !== EAGER.name)
  return [
    ...(containers.some(({ name }) => name === LATE.name)
      ? []
      : [{ op: 'add', path: '/spec/containers/-', value: LATE }]),
    ...(foreign.length === initContainers.length
      ? [{ op: 'add', path: '/spec/initContainers', value: [EAGER, ...foreign] }]
      : []),
  ]
}
