/** A namespace whose policies a sidecar reads: with the token of its Pod, and the permissions that it gets there. */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { type ApiClient, createApiClient } from '../../kubernetes/client.ts'
import { createPodConnection } from '../../kubernetes/pod-connection.ts'
import { createApiSource } from '../../sidecar/control/policies/api.ts'
import { manifestOf, type PolicyObject, type PolicyStage } from '../contract/policy-source.ts'
import { until } from '../contract/stage.ts'
import type { ControlPlane } from './control-plane.ts'
import { compact, restartApiServer, storeUnvalidated } from './outage.ts'
import { createNamespace, mintToken, putObject, unless } from './stage.ts'
import { openTunnel } from './tunnel.ts'
import { caPathOf } from './users.ts'

/** What a token of the API server itself is for; the kubelet asks for it where a projected token names none. */
const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local'
const BACKOFF = { initialMs: 50, maxMs: 200 }

export interface ApiPolicyStage extends PolicyStage {
  /** The sidecar's own client. */
  readonly client: ApiClient
  /** The same, whose requests `asked` has. */
  readonly recording: ApiClient
  /** `list`, `version` or `watch`, one for each request so far. */
  readonly asked: readonly string[]
  readonly caPath: string
  readonly tokenPath: string
  /** Writes a token of that Pod, which is made where it is missing, over the one that the sidecar has. */
  projectToken(podName: string): Promise<void>
}

export interface ApiPolicyStageOptions {
  /** Of the namespace; by them the namespace controller knows it. */
  readonly labels: Readonly<Record<string, string>>
  /** Waits until the sidecar may read policies. */
  readonly isAllowed: boolean
}

export const pathOfPolicies = (namespace: string) =>
  `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`

let serial = 0

export async function createApiPolicyStage(
  control: ControlPlane,
  { labels, isAllowed }: ApiPolicyStageOptions,
): Promise<ApiPolicyStage> {
  const { admin } = control
  const namespace = `policies-${++serial}`
  const path = pathOfPolicies(namespace)
  await createNamespace(admin, namespace, { labels })
  await createNamespace(admin, 'elsewhere')

  const folder = mkdtempSync(join(tmpdir(), 'synguard-credentials-'))
  const caPath = join(folder, 'api-ca.crt')
  const tokenPath = join(folder, 'api-token')
  copyFileSync(caPathOf(control), caPath)
  async function projectToken(podName: string): Promise<void> {
    const spec = { serviceAccountName: 'default', containers: [{ name: 'app' }] }
    await putObject(admin, 'Pod', { metadata: { name: podName, namespace }, spec } as object)
    writeFileSync(tokenPath, await mintToken(admin, { namespace, podName, audience: API_AUDIENCE }))
  }
  await projectToken('web')

  const tunnel = await openTunnel(control.port)
  const connection = createPodConnection({ address: '127.0.0.1', port: tunnel.port, tokenPath, caPath })
  const asked: string[] = []
  const client = createApiClient(connection, { userAgent: 'synguard-sidecar' })
  const recording: ApiClient = {
    send(request) {
      asked.push(request.query?.limit === '1' ? 'version' : 'list')
      return client.send(request)
    },
    watch(request, onOpen) {
      asked.push('watch')
      return client.watch(request, onOpen)
    },
  }
  if (isAllowed) {
    await until('the permission', () =>
      client.send({ method: 'GET', path }).then(
        () => true,
        () => false,
      ),
    )
  }
  const place = (policy: PolicyObject) => policy.namespace ?? namespace

  return {
    source: createApiSource({
      client: recording,
      namespace,
      log: pino({ level: 'silent' }),
      random: Math.random,
      backoff: BACKOFF,
    }),
    namespace,
    client,
    recording,
    caPath,
    tokenPath,
    asked,
    projectToken,
    async put(policy) {
      const body = manifestOf(policy, place(policy))
      const at = pathOfPolicies(place(policy))
      const made = await unless(409, admin.send({ method: 'POST', path: at, body }))
      if (made === undefined) await admin.send({ method: 'PUT', path: `${at}/${policy.name}`, body })
    },
    remove: async (name) => void (await admin.send({ method: 'DELETE', path: `${path}/${name}` })),
    async damage(name) {
      const stored = await admin.send<{ spec: object }>({ method: 'GET', path: `${path}/${name}` })
      const damaged = { ...stored, spec: { ...stored.spec, policyTypes: ['Sideways'] } }
      await storeUnvalidated(control, `networkpolicies/${namespace}/${name}`, damaged)
    },
    cut: async () => tunnel.cut(),
    mend: async () => tunnel.mend(),
    async renew() {
      tunnel.cut()
      await compact(control)
      await restartApiServer(control)
      tunnel.mend()
    },
    async close() {
      connection.close()
      await tunnel.close()
      rmSync(folder, { recursive: true })
      await unless(404, admin.send({ method: 'DELETE', path: `${pathOfPolicies('elsewhere')}/elsewhere` }))
    },
  }
}
