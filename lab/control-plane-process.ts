/** The process behind control-plane.ts: the webhook with a cluster in memory, in the node's network namespace. */
import { request as httpsRequest } from 'node:https'
import { pino } from 'pino'
import { createServingAuthority, issueServingCertificate } from '../certs/serving.ts'
import { createAuthority } from '../webhook/issuer/authority.ts'
import { answerRequest } from '../webhook/issuer/void-entries.ts'
import { createVoidList, type VoidList } from '../webhook/issuer/voids.ts'
import { createMemoryCluster } from '../webhook/memory-cluster.ts'
import { createServer, keepSeconds, type WebhookServer } from '../webhook/server.ts'
import { createWebhookSettings } from '../webhook/settings.ts'
import { applyAdmission, createReview } from './admit.ts'
import { answerChannel } from './channel.ts'
import type { ControlPlaneRequest } from './control-plane-protocol.ts'
import { type LabRotation, startLabRotation } from './rotation.ts'

const DAY_SECONDS = 86_400
const nowSeconds = () => Math.floor(Date.now() / 1000)

interface Started {
  readonly webhook: WebhookServer
  readonly voids: VoidList
  readonly rotation: LabRotation
  readonly address: string
  readonly port: number
  readonly serverName: string
  readonly caCertificatePem: string
}

const cluster = createMemoryCluster({ now: nowSeconds })
let started: Started | undefined

function requireStarted(): Started {
  if (started === undefined) throw new Error('the webhook is not started')
  return started
}

async function start(request: Extract<ControlPlaneRequest, { do: 'start' }>): Promise<{ caCertificatePem: string }> {
  const { address, port, serverName, injection, witLifetimeSeconds } = request
  const now = nowSeconds()
  const ca = createServingAuthority({ now, lifetimeSeconds: DAY_SECONDS })
  const settings = createWebhookSettings({
    port,
    trustDomain: injection.trustDomain,
    ...(witLifetimeSeconds !== undefined && { witLifetimeSeconds }),
  })
  const voids = createVoidList({ now: nowSeconds, keepSeconds: keepSeconds(settings) })
  const log = pino({ level: process.env.SYNGUARD_LAB_LOG_LEVEL ?? 'info' })
  const rotation = await startLabRotation(cluster, settings, log)
  const authority = createAuthority(rotation.holder)
  rotation.follow(authority.announce)
  const webhook = createServer({
    cluster,
    voids,
    authority,
    acknowledge: rotation.acknowledge,
    tls: issueServingCertificate(ca, { names: [serverName], addresses: [address], now, lifetimeSeconds: DAY_SECONDS }),
    settings,
    injection,
    log,
  })
  await webhook.listen()
  started = { webhook, voids, rotation, address, port, serverName, caCertificatePem: ca.certificatePem }
  return { caCertificatePem: ca.certificatePem }
}

/** Posts an AdmissionReview as the API server does; answers the review that comes back. */
function postReview({ address, port, serverName, caCertificatePem }: Started, review: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        host: address,
        port,
        path: '/mutate?timeout=10s',
        method: 'POST',
        servername: serverName,
        ca: caCertificatePem,
        headers: { 'content-type': 'application/json' },
        timeout: 10_000,
      },
      (response) => {
        let body = ''
        response.setEncoding('utf8')
        response.on('data', (text: string) => {
          body += text
        })
        response.on('error', reject)
        response.on('end', () => {
          if (response.statusCode === 200) resolve(JSON.parse(body))
          else reject(new Error(`/mutate answered ${response.statusCode}: ${body.slice(0, 500)}`))
        })
      },
    )
    request.on('timeout', () => request.destroy(new Error('/mutate did not answer in time')))
    request.on('error', reject)
    request.end(JSON.stringify(review))
  })
}

async function perform(request: ControlPlaneRequest): Promise<unknown> {
  switch (request.do) {
    case 'start':
      return await start(request)
    case 'put':
      cluster.put(request.kind, request.object)
      return null
    case 'delete':
      cluster.delete(request.kind, request.name, request.namespace)
      return null
    case 'mintToken':
      return cluster.mintToken(request)
    case 'admit':
      return applyAdmission(request.pod, await postReview(requireStarted(), createReview(request.pod)))
    case 'revoke':
      requireStarted().webhook.revoke(request.entry)
      return null
    case 'requestRotation':
      requireStarted().rotation.ask(request.request)
      return null
    case 'rotationStatus':
      return requireStarted().rotation.status() ?? null
    case 'requestVoid': {
      const { voids } = requireStarted()
      voids.merge(request.uid, answerRequest(request.request, voids.get(request.uid) ?? {}, nowSeconds()))
      return null
    }
  }
}

answerChannel(perform)
