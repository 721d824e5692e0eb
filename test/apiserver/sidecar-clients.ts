/** The control plane of a sidecar as it is, without its packet path: identity, stream, keys, and their acknowledgement. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { TrustBundle } from '../../api/identity.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { authenticateRequest, createIdentityClient, type OwnIdentity } from '../../sidecar/control/identity-client.ts'
import { createIssuerHttp } from '../../sidecar/control/issuer-http.ts'
import { createStreamClient } from '../../sidecar/control/stream-client.ts'
import { createTrustKeeper } from '../../sidecar/control/trust-keeper.ts'
import { until } from '../contract/stage.ts'
import { SYSTEM } from './permissions.ts'
import { mintToken } from './stage.ts'

export interface SidecarClients {
  readonly name: string
  identity(): OwnIdentity
  bundle(): TrustBundle
  /** Another serving CA in its projected volume, as the kubelet would put it there. */
  setCa(pem: string): void
  /** Requests that failed, by their path and code. */
  readonly failures: readonly string[]
  stop(): void
}

export interface SidecarClientsOptions {
  readonly admin: ApiClient
  /** Of the replica that it speaks to. */
  readonly port: number
  readonly ca: string
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string }
}

/** Resolves once it holds an identity and its stream is open. */
export async function startSidecarClients({ admin, port, ca, pod }: SidecarClientsOptions): Promise<SidecarClients> {
  const folder = mkdtempSync(join(tmpdir(), 'synguard-sidecar-'))
  const caPath = join(folder, 'ca.crt')
  const tokenPath = join(folder, 'token')
  const log = pino({ level: 'silent' })
  const random = Math.random
  const name = `synguard-webhook.${SYSTEM}.svc`
  writeFileSync(caPath, ca)
  writeFileSync(tokenPath, await mintToken(admin, { ...pod, podName: pod.name, audience: 'synguard' }))
  const failures: string[] = []
  const http = createIssuerHttp({
    ...{ address: '127.0.0.1', port, name, caPath, now: Date.now },
    onResult: (endpoint, code) => void (code === '200' || failures.push(`${endpoint} ${code}`)),
  })
  const authenticate = (path: string) => authenticateRequest(identities.current(), path, Date.now())
  const trust = createTrustKeeper({
    ...{ http, authenticate, caPath, log, random, caCheckMs: 200 },
    identityKid: () => identities.current()?.verified.kid,
    onBundle: () => {},
    onCut: () => {},
    renew: (reason, spreadMs) => identities.renew(reason, spreadMs),
  })
  const identities = createIdentityClient({
    ...{ http, tokenPath, pod, log, random, now: Date.now },
    trustDomain: 'cluster.local',
    issuer: `https://${name}`,
    onIdentity({ bundle }) {
      trust.take(bundle)
      trust.identityChanged()
      stream.start()
    },
  })
  const stream = createStreamClient({
    ...{ http, authenticate, log, random },
    holding: () => ({ ...trust.holding(), addresses: [] }),
    onMessage(message, sent) {
      if (message.type === 'hello') trust.acknowledged(sent.acknowledge)
      if (message.type === 'hello' || message.type === 'bundle') trust.take(message.bundle)
    },
    onState: () => {},
  })
  identities.start()
  await until('the stream', () => stream.connected())
  const held = <Value>(value: Value | undefined): Value => {
    if (value === undefined) throw new Error('nothing is held yet')
    return value
  }
  return {
    name: `${pod.namespace}/${pod.name}`,
    identity: () => held(identities.current()),
    bundle: () => held(trust.bundle()),
    setCa: (pem) => writeFileSync(caPath, pem),
    failures,
    stop() {
      stream.stop()
      identities.stop()
      trust.stop()
      http.close()
      rmSync(folder, { recursive: true })
    },
  }
}
