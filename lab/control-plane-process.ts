/** The process behind control-plane.ts: the webhook with a cluster in memory, in the node's network namespace. */
import { createServingAuthority } from '../certs/serving.ts'
import { mutate } from '../webhook/admission/mutate.ts'
import type { InjectionSettings } from '../webhook/admission/settings.ts'
import { createMemoryCluster } from '../webhook/memory-cluster.ts'
import { applyAdmission, createReview } from './admit.ts'
import { answerChannel } from './channel.ts'
import type { ControlPlaneRequest } from './control-plane-protocol.ts'

const DAY_SECONDS = 86_400
const nowSeconds = () => Date.now() / 1000

const cluster = createMemoryCluster({ now: nowSeconds })
let settings: InjectionSettings | undefined

async function perform(request: ControlPlaneRequest): Promise<unknown> {
  switch (request.do) {
    case 'start': {
      settings = request.injection
      const authority = createServingAuthority({ now: nowSeconds(), lifetimeSeconds: DAY_SECONDS })
      return { caCertificatePem: authority.certificatePem }
    }
    case 'put':
      cluster.put(request.kind, request.object)
      return null
    case 'delete':
      cluster.delete(request.kind, request.name, request.namespace)
      return null
    case 'mintToken':
      return cluster.mintToken(request)
    case 'admit': {
      if (settings === undefined) throw new Error('the webhook is not started')
      const lookup = (name: string) => {
        const metadata = cluster.get('Namespace', name)?.metadata
        return metadata && { name, labels: metadata.labels ?? {}, annotations: metadata.annotations ?? {} }
      }
      return applyAdmission(request.pod, await mutate(createReview(request.pod), lookup, settings))
    }
  }
}

answerChannel(perform)
