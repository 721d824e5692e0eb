/** A guarded Pod that has its policies from a real API server, through its own rules. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node'
import { API_SERVER_ENVIRONMENT, ENVIRONMENT } from '../../api/environment.ts'
import { CONFIGMAP_MODE, CONTAINER_SIDECAR, FILE_API_CA, FILE_API_TOKEN, VOLUME_CREDENTIALS } from '../../api/names.ts'
import type { Outcome } from '../../lab/agent-protocol.ts'
import type { Lab } from '../../lab/lab.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { ownerOf, POLICY_READER, policyReaderBinding } from '../../webhook/namespaces/objects.ts'
import { until } from '../contract/stage.ts'
import { addressOf, createTestLab, idlePod, runIdlePod } from '../lab/objects.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { install } from './permissions.ts'
import { pathOfPolicies } from './policies-stage.ts'
import { createNamespace, mintToken, putObject, unless } from './stage.ts'
import { openTunnel, type Tunnel } from './tunnel.ts'
import { caPathOf } from './users.ts'

/** The Service `kubernetes`, which the API server's certificate names. */
const API_SERVICE = { address: '10.96.0.1', port: 443 }
const NAMESPACE = 'guarded'
const ROUNDS = 10

let control: ControlPlane
let lab: Lab
let tunnel: Tunnel
let relay: ChildProcess | undefined
beforeAll(async () => {
  ;[control, lab] = await Promise.all([startControlPlane(), createTestLab()])
  await install(control.admin, { secret: 'guarded', webhookConfiguration: 'guarded' })
  await createNamespace(control.admin, NAMESPACE)
  const rbac = '/apis/rbac.authorization.k8s.io/v1'
  const role = await control.admin.send<KubernetesObject>({
    method: 'GET',
    path: `${rbac}/clusterroles/${POLICY_READER}`,
  })
  const body = policyReaderBinding(NAMESPACE, ownerOf(role))
  await control.admin.send({ method: 'POST', path: `${rbac}/namespaces/${NAMESPACE}/rolebindings`, body })
  const socket = join(control.statePath, 'api.sock')
  tunnel = await openTunnel(control.port, socket)
  relay = await startRelay(lab.network.node, socket)
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(async () => {
  relay?.kill('SIGKILL')
  await lab?.stop()
  await tunnel?.close()
  await control?.stop()
}, CONTROL_PLANE_TIMEOUT_MS)

/** The API server's Service on the lab's node: a UNIX socket leads out of its network namespace. */
async function startRelay(netns: string, socket: string): Promise<ChildProcess> {
  execFileSync('ip', ['-n', netns, 'address', 'add', `${API_SERVICE.address}/32`, 'dev', 'lo'])
  const script = `const { connect, createServer } = require('node:net')
    createServer((near) => {
      const far = connect(${JSON.stringify(socket)})
      for (const [one, other] of [[near, far], [far, near]]) one.pipe(other).on('error', () => {}), one.on('close', () => other.destroy())
    }).listen(${API_SERVICE.port}, '${API_SERVICE.address}', () => console.log('listening'))`
  const child = spawn('ip', ['netns', 'exec', netns, process.execPath, '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('exit', () => reject(new Error('the relay ended')))
  })
  return child
}

/** The Pod as an installation in a cluster makes it: with the API server as source of policies. */
function withApiSource(pod: V1Pod): V1Pod {
  const initContainers = (pod.spec?.initContainers ?? []).map((container) => {
    if (container.name !== CONTAINER_SIDECAR) return container
    const env = (container.env ?? []).filter(({ name }) => name !== ENVIRONMENT.policySource)
    env.push({ name: ENVIRONMENT.policySource, value: 'api' })
    env.push({ name: API_SERVER_ENVIRONMENT.apiServerAddress, value: API_SERVICE.address })
    env.push({ name: API_SERVER_ENVIRONMENT.apiServerPort, value: String(API_SERVICE.port) })
    return { ...container, env }
  })
  return { ...pod, spec: { ...pod.spec, containers: pod.spec?.containers ?? [], initContainers } }
}

/** Runs a guarded server whose credentials are those of a Pod that the API server knows by the same name. */
async function runServer(name: string): Promise<RunningPod> {
  const object = idlePod(NAMESPACE, name, { app: name })
  const containers = [{ name: 'app', image: 'app', ports: [{ containerPort: 8080 }] }]
  const admitted = withApiSource(await lab.admitPod({ ...object, spec: { containers } }))
  const spec = { serviceAccountName: 'default', containers: [{ name: 'app', image: 'app:1' }] }
  await putObject(control.admin, 'Pod', { metadata: { name, namespace: NAMESPACE }, spec } as KubernetesObject)
  const audience = 'https://kubernetes.default.svc.cluster.local'
  const token = await mintToken(control.admin, { namespace: NAMESPACE, podName: name, audience })
  const running = lab.runPod(admitted)
  const folder = join(lab.run.directory, 'pods', admitted.metadata?.uid ?? '', 'volumes', VOLUME_CREDENTIALS)
  await Promise.race([running, until('the volume', () => existsSync(join(folder, FILE_API_TOKEN)))])
  mkdirSync(folder, { recursive: true })
  copyFileSync(caPathOf(control), join(folder, FILE_API_CA))
  writeFileSync(join(folder, 'fresh'), token, { mode: 0o644 })
  renameSync(join(folder, 'fresh'), join(folder, FILE_API_TOKEN))
  return await running
}

/** Everything out is denied; `ingress` are the rules for what comes in. */
async function writePolicy(ingress: readonly object[]): Promise<void> {
  const path = pathOfPolicies(NAMESPACE)
  const body = {
    metadata: { name: 'server', namespace: NAMESPACE },
    spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'], ingress },
  }
  const made = await unless(409, control.admin.send({ method: 'POST', path, body }))
  if (made === undefined) await control.admin.send({ method: 'PUT', path: `${path}/server`, body })
}

describe('a guarded Pod in a cluster', () => {
  it('takes up policies from the API server, and reaches it although all egress is denied', async () => {
    await writePolicy([{}])
    const server = await runServer('server')
    const client = await runIdlePod(lab, 'plain', 'client')
    const target = { protocol: 'TCP', address: addressOf(server), port: 8080 } as const
    const outcome = async (): Promise<Outcome> =>
      (await client.agent.ask({ do: 'reach', target, timeoutMs: 2_000 })).outcome
    /** Milliseconds from the moment that the policy is sent until what is expected happens. */
    async function takeUp(ingress: readonly object[], expected: Outcome): Promise<number> {
      const sentAt = performance.now()
      await writePolicy(ingress)
      // Attempts without a pause: what is measured is shorter than one.
      while ((await outcome()) !== expected) {
        if (performance.now() - sentAt > 30_000) throw new Error(`not ${expected}`)
      }
      return performance.now() - sentAt
    }
    expect(await outcome()).toBe('answered')
    const denied: number[] = []
    const allowed: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      denied.push(await takeUp([], 'refused'))
      allowed.push(await takeUp([{}], 'answered'))
    }
    const show = (ms: readonly number[]) =>
      ms
        .toSorted((a, b) => a - b)
        .map((value) => value.toFixed(0))
        .join(' ')
    process.stderr.write(
      `policy sent to API server until refused: ${show(denied)} ms; until answered: ${show(allowed)} ms\n`,
    )

    // A new connection to the API server, under policies that deny all egress.
    tunnel.cut()
    await writePolicy([])
    expect(await outcome()).toBe('answered')
    tunnel.mend()
    await until('the denial', async () => (await outcome()) === 'refused')

    // Break-glass comes from the API server too; the issuer's stream goes on to say enforce.
    const path = `/api/v1/namespaces/${NAMESPACE}/configmaps`
    const write = (method: 'POST' | 'PUT', breakGlass: string) => {
      const body = { metadata: { name: CONFIGMAP_MODE }, data: { mode: 'enforce', 'break-glass': breakGlass } }
      return control.admin.send({ method, path: method === 'POST' ? path : `${path}/${CONFIGMAP_MODE}`, body })
    }
    await write('POST', 'audit')
    await until('the broken glass', async () => (await outcome()) === 'answered')
    await write('PUT', '')
    await until('the way back', async () => (await outcome()) === 'refused')
    await write('PUT', 'off')
    await until('the glass broken again', async () => (await outcome()) === 'answered')
    await control.admin.send({ method: 'DELETE', path: `${path}/${CONFIGMAP_MODE}` })
    await until('the end without a ConfigMap', async () => (await outcome()) === 'refused')
  }, 120_000)
})
