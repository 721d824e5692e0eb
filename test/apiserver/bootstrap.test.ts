import { execFileSync } from 'node:child_process'
import type { X509Certificate } from 'node:crypto'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1MutatingWebhookConfiguration, V1Secret } from '@kubernetes/client-node'
import { caBundle } from '../../webhook/bootstrap/trust.ts'
import { until } from '../contract/stage.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { freshIdentity, freshServing, readKeys, SECRETS, serializeKeys, withKey } from './keys.ts'
import { type InstalledNames, install, SYSTEM, webhookConfiguration } from './permissions.ts'
import { type ReplicaProcess, spawnReplica } from './replica.ts'
import { unless } from './stage.ts'
import { openTunnel } from './tunnel.ts'

const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

let control: ControlPlane
const replicas: ReplicaProcess[] = []
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterEach(async () => {
  await Promise.all(replicas.splice(0).map((replica) => replica.stop()))
})
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

async function spawn(names: InstalledNames, more: { apiPort?: number } = {}): Promise<ReplicaProcess> {
  const replica = await spawnReplica({ control, names, ...more })
  replicas.push(replica)
  return replica
}

const keysOf = (name: string) => readKeys(control.admin, name)

const configure = (name: string, port: number) =>
  control.admin.send({ method: 'POST', path: CONFIGURATIONS, body: webhookConfiguration(name, port) })
const readConfiguration = (name: string) =>
  control.admin.send<V1MutatingWebhookConfiguration>({ method: 'GET', path: `${CONFIGURATIONS}/${name}` })

/** kids of the bundle that a replica answers, over a connection that trusts `ca` alone. */
function askBundle(port: number, ca: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const target = { host: '127.0.0.1', port, path: '/v1/bundle', ca, servername: `synguard-webhook.${SYSTEM}.svc` }
    const request = httpsRequest({ ...target, agent: false }, async (response) => {
      const { keys } = JSON.parse((await response.toArray()).join('')) as { keys: { kid: string }[] }
      resolve(keys.map(({ kid }) => kid))
    })
    request.on('error', reject).end()
  })
}

/** The certificate that a replica shows, whoever made it. */
function shownCertificate(port: number): Promise<X509Certificate> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      const certificate = socket.getPeerX509Certificate()
      socket.destroy()
      if (certificate === undefined) reject(new Error('no certificate'))
      else resolve(certificate)
    })
    socket.on('error', reject)
  })
}

describe('two replicas that start at the same moment', () => {
  it.each([
    ['where the Secret is installed empty', false],
    ['where there is no Secret', true],
  ])(
    'agree on one authority and one serving CA %s',
    async (_, isMissing) => {
      const names = { secret: `agree-${isMissing}`, webhookConfiguration: `agree-${isMissing}` }
      await install(control.admin, names, isMissing)
      if (!isMissing) {
        await control.admin.send({ method: 'POST', path: SECRETS, body: { metadata: { name: names.secret } } })
      }
      const pair = await Promise.all([spawn(names), spawn(names)])
      const ports = await Promise.all(pair.map((replica) => replica.port()))
      const { kid, ca } = await keysOf(names.secret)
      const known = await Promise.all(pair.map((replica) => replica.line('the authority is known')))
      expect(known.map(({ kids }) => kids)).toEqual([[kid], [kid]])
      const made = pair.flatMap(({ log }) => log.filter(({ wrote }) => wrote === 'bootstrap').map(({ kind }) => kind))
      expect(made.sort()).toEqual(['identity', 'serving'])
      for (const port of ports) expect(await askBundle(port, ca)).toEqual([kid])
      // Each has a certificate of its own: no private key of one is anywhere else.
      const shown = await Promise.all(ports.map(shownCertificate))
      expect(shown[0]?.fingerprint256).not.toBe(shown[1]?.fingerprint256)
    },
    60_000,
  )
})

describe('a replica', () => {
  const names = { secret: 'one', webhookConfiguration: 'one' }
  beforeAll(() => install(control.admin, names, true))

  it('sets caBundle as its own field and nothing else, keeps it, and is ready only then', async () => {
    const replica = await spawn(names)
    const port = await replica.port()
    const before = await replica.readyz()
    expect([before.status, before.body.conditions.trusted]).toEqual([503, false])
    await configure(names.webhookConfiguration, port)
    await until('ready', async () => (await replica.readyz()).status === 200)

    const bundle = Buffer.from((await keysOf(names.secret)).ca).toString('base64')
    const { metadata, webhooks } = await readConfiguration(names.webhookConfiguration)
    expect(webhooks?.map(({ clientConfig }) => clientConfig.caBundle)).toEqual([bundle])
    const ours = metadata?.managedFields?.filter(({ operation }) => operation === 'Apply')
    expect(ours?.map(({ manager, fieldsV1 }) => [manager, fieldsV1])).toEqual([
      [
        'synguard-webhook',
        {
          'f:webhooks': {
            'k:{"name":"pods.synguard.io"}': { '.': {}, 'f:clientConfig': { 'f:caBundle': {} }, 'f:name': {} },
          },
        },
      ],
    ])

    const path = `${CONFIGURATIONS}/${names.webhookConfiguration}`
    const taken = [{ op: 'remove', path: '/webhooks/0/clientConfig/caBundle' }]
    await control.admin.send({ method: 'PATCH', path, contentType: 'application/json-patch+json', body: taken })
    await until('caBundle to be back', async () => {
      const { webhooks: found } = await readConfiguration(names.webhookConfiguration)
      return found?.[0]?.clientConfig.caBundle === bundle
    })
  }, 60_000)

  it.each([
    ['by kubectl', []],
    ['by kubectl on the server', ['--server-side']],
  ])(
    'keeps caBundle where the manifests, which have none, are applied again %s',
    async (_, flags) => {
      const own = { secret: `applied-${flags.length}`, webhookConfiguration: `applied-${flags.length}` }
      await install(control.admin, own, true)
      const replica = await spawn(own)
      const kind = { apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration' }
      const apply = (timeoutSeconds: number) => {
        const manifest = { ...kind, ...webhookConfiguration(own.webhookConfiguration, 9) }
        for (const webhook of manifest.webhooks) webhook.timeoutSeconds = timeoutSeconds
        const command = ['--kubeconfig', control.kubeconfigPath, 'apply', ...flags, '-f', '-']
        execFileSync(control.kubectlPath, command, { input: JSON.stringify(manifest) })
      }
      apply(10)
      await until('ready', async () => (await replica.readyz()).status === 200)
      const before = await readConfiguration(own.webhookConfiguration)
      apply(5)
      const after = await readConfiguration(own.webhookConfiguration)
      expect(after.webhooks?.[0]).toMatchObject({ timeoutSeconds: 5, clientConfig: before.webhooks?.[0]?.clientConfig })
      expect(after.webhooks?.[0]?.clientConfig.caBundle).toMatch(/^LS0t/)
    },
    60_000,
  )

  it('reaches the API server as a Pod does, by its service account', async () => {
    const replica = await spawnReplica({ control, names, asPod: true })
    replicas.push(replica)
    await replica.port()
    expect((await replica.line('starting')).server).toBe(`127.0.0.1:${control.port}`)
    expect((await replica.readyz()).body.conditions).toMatchObject({ started: true, cluster: true })
  }, 60_000)

  it('takes new keys and a new serving CA from the Secret without a restart', async () => {
    const replica = await spawn(names)
    const port = await replica.port()
    await unless(409, configure(names.webhookConfiguration, port))
    const old = await keysOf(names.secret)
    const identity = withKey(old.identity, freshIdentity())
    const fresh = freshServing()
    const serving = withKey(old.serving, fresh)
    const body = { stringData: serializeKeys(identity, serving) }
    const path = `${SECRETS}/${names.secret}`
    await control.admin.send({ method: 'PATCH', path, contentType: 'application/merge-patch+json', body })
    await replica.line('serving with a new certificate')
    expect(await askBundle(port, fresh.material.certificatePem)).toEqual(identity.keys.map(({ id }) => id))
    const encoded = Buffer.from(caBundle(serving)).toString('base64')
    await until('both CAs in caBundle', async () => {
      const { webhooks } = await readConfiguration(names.webhookConfiguration)
      return webhooks?.[0]?.clientConfig.caBundle === encoded
    })
  }, 60_000)

  it('never writes over a Secret that it cannot read, says so, and starts once it is mended', async () => {
    const damaged = { secret: 'damaged', webhookConfiguration: 'damaged' }
    await install(control.admin, damaged)
    const stringData = { 'identity.json': '[{"state":"active","key":{"kty":"EC"}}]', 'serving.json': '[]' }
    await control.admin.send({
      method: 'POST',
      path: SECRETS,
      body: { metadata: { name: damaged.secret }, stringData },
    })
    const replica = await spawn(damaged)
    await until('both to be reported', () => replica.log.filter(({ msg }) => /^no turn/.test(msg)).length === 2)
    const codes = replica.log.filter(({ msg }) => /^no turn/.test(msg)).map(({ kind, code }) => [kind, code])
    expect(codes.sort()).toEqual([
      ['identity', 'authority-key'],
      ['serving', 'authority-serving'],
    ])
    expect((await replica.readyz()).body.conditions.started).toBe(false)
    const path = `${SECRETS}/${damaged.secret}`
    const found = await control.admin.send<V1Secret>({ method: 'GET', path })
    expect(Buffer.from(found.data?.['serving.json'] ?? '', 'base64').toString()).toBe('[]')
    const mended = {
      stringData: serializeKeys(withKey(undefined, freshIdentity()), withKey(undefined, freshServing())),
    }
    await control.admin.send({ method: 'PATCH', path, contentType: 'application/merge-patch+json', body: mended })
    await replica.port()
  }, 60_000)

  it('lives and is not ready while the API server is away, says so, and starts once it is there', async () => {
    const tunnel = await openTunnel(control.port)
    tunnel.cut()
    const replica = await spawn(names, { apiPort: tunnel.port })
    const line = await replica.line('no turn of the rotation; trying again')
    expect(line.code).toBe('api-unreachable')
    expect((await replica.readyz()).status).toBe(503)
    tunnel.mend()
    await replica.port()
    await replica.stop()
    await tunnel.close()
  }, 60_000)

  it('ends on SIGTERM: first not ready, still answering, then with code 0', async () => {
    const replica = await spawnReplica({ control, names, settings: { drainMs: 1_500 } })
    replicas.push(replica)
    const port = await replica.port()
    const ended = replica.stop()
    await replica.line('ending')
    expect((await replica.readyz()).body.conditions.staying).toBe(false)
    expect(await askBundle(port, (await keysOf(names.secret)).ca)).not.toEqual([])
    expect(await ended).toBe(0)
  }, 60_000)

  it('logs JSON without keys and tokens', async () => {
    const replica = await spawn(names)
    await replica.port()
    const text = JSON.stringify(replica.log)
    expect(text).not.toMatch(/PRIVATE KEY|eyJ[\w-]{5,}\.|"d":/)
    for (const line of replica.log)
      expect(Object.keys(line)).toEqual(expect.arrayContaining(['level', 'time', 'replica', 'msg']))
  }, 60_000)
})
