import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError } from '../../kubernetes/errors.ts'
import type { WebhookMetrics } from '../metrics.ts'

/** Resources by their plural, as metrics name them: a label must not be whatever stands in a path. */
const RESOURCES = [
  'pods',
  'namespaces',
  'services',
  'endpointslices',
  'nodes',
  'secrets',
  'configmaps',
  'events',
  'leases',
  'clusterroles',
  'rolebindings',
  'mutatingwebhookconfigurations',
  'tokenreviews',
] as const

/** The last part of a path that is a resource; `/api/v1/namespaces/x/configmaps/y` is of `configmaps`. */
export function resourceOf(path: string): string {
  const parts = path.split('/')
  return RESOURCES.findLast((resource) => parts.includes(resource)) ?? 'other'
}

/** HTTP status, or the code of what kept an answer away. */
function reasonOf(error: unknown): string {
  if (!(error instanceof ApiError)) return 'unexpected'
  return error.status === undefined ? error.code : String(error.status)
}

/** The client, with every request, list and watch counted. `now` gives milliseconds that only grow. */
export function observeClient(client: ApiClient, metrics: WebhookMetrics, now = () => performance.now()): ApiClient {
  const { requests, requestSeconds, watches, watchFailures, watchEvents, heardAt } = metrics.api
  return {
    async send(request) {
      const resource = resourceOf(request.path)
      // A page of a list; its first request is the list. Of one object alone the version is asked for.
      const { limit, continue: token } = request.query ?? {}
      const isList = request.method === 'GET' && limit !== undefined && (limit !== '1' || token !== undefined)
      if (isList && token === undefined) metrics.api.lists.inc({ resource })
      const startedAt = now()
      let code = 'ok'
      try {
        const answer = await client.send<never>(request)
        if (isList) heardAt.set(resource, now())
        return answer
      } catch (error) {
        code = reasonOf(error)
        // A smaller page is asked for at once.
        if (isList && code !== 'api-too-large') watchFailures.inc({ resource, reason: code })
        throw error
      } finally {
        const verb = isList ? 'list' : request.method.toLowerCase()
        requests.inc({ verb, resource, code })
        requestSeconds.observe({ verb, resource }, (now() - startedAt) / 1_000)
      }
    },
    async *watch(request, onOpen) {
      const resource = resourceOf(request.path)
      try {
        const events = client.watch(request, () => {
          watches.inc({ resource })
          heardAt.set(resource, now())
          onOpen()
        })
        for await (const event of events) {
          const { type, object } = event as { readonly type?: string; readonly object?: { readonly code?: number } }
          heardAt.set(resource, now())
          if (type === 'ERROR') watchFailures.inc({ resource, reason: String(object?.code ?? 500) })
          else watchEvents.inc({ resource })
          yield event
        }
      } catch (error) {
        // The end of the process ends its watches.
        if (request.signal?.aborted !== true) watchFailures.inc({ resource, reason: reasonOf(error) })
        throw error
      }
    },
  }
}
