/**
 * A pair of mutual-TLS sidecars, as a service mesh has them: client, HAProxy, TLS over the Pods' network, HAProxy,
 * server. P-256 certificates of an authority made for the run, TLS 1.3, one thread each.
 */
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { CHECKOUT } from '../../lab/sandbox.ts'
import { inside } from '../lab/programs.ts'
import type { Variant } from './field.ts'
import { connect, type Target } from './load.ts'

/** Where haproxy-client.cfg listens: echo, and the sink one port higher. */
const LOCAL_PORT = 7100
/** The pair is slow: an eighth of the others' connections takes as long. */
const SHARE = 1 / 8
const START_ATTEMPTS = 100

const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc']

/** Writes ca.pem, and client.pem and server.pem with key and certificate, as HAProxy wants them. */
async function makeCertificates(folder: string): Promise<void> {
  mkdirSync(folder, { mode: 0o700 })
  const path = (name: string) => join(folder, name)
  const request = ['req', '-x509', ...CURVE, '-days', '2', '-batch']
  await runCommand('openssl', [...request, '-subj', '/CN=bench', '-keyout', path('ca.key'), '-out', path('ca.pem')])
  for (const name of ['client', 'server']) {
    const issuer = ['-CA', path('ca.pem'), '-CAkey', path('ca.key')]
    const extensions = ['-addext', `subjectAltName=DNS:${name}`, '-addext', 'basicConstraints=critical,CA:FALSE']
    const out = ['-keyout', path(`${name}.pem.key`), '-out', path(`${name}.pem`)]
    await runCommand('openssl', [...request, ...issuer, '-subj', `/CN=${name}`, ...extensions, ...out])
  }
}

function startHaproxy(pod: RunningPod, name: string, certificates: string, server: string): number {
  const environment = [`BENCH_CERTIFICATES=${certificates}`, `BENCH_SERVER=${server}`]
  const config = join(import.meta.dirname, `${name}.cfg`)
  const child = spawn('ip', inside(pod, 'env', ...environment, 'haproxy', '-db', '-f', config), {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  return child.pid ?? 0
}

/** Waits until the chain stands from end to end. Throws where it does not. */
async function awaitChain(load: string, target: Target): Promise<void> {
  let error = ''
  for (let attempt = 0; attempt < START_ATTEMPTS; attempt++) {
    const figures = await connect(load, target, 1, 1)
    if (figures.succeeded === 1) return
    error = figures.firstError
    await new Promise((again) => setTimeout(again, 50))
  }
  throw new Error(`the HAProxy pair does not answer: ${error}`)
}

/** Starts the pair, with HAProxy installed where it is missing; returns what differs from a plain pair. */
export async function startMutualTls(
  client: RunningPod,
  server: RunningPod,
  load: string,
  folder: string,
): Promise<Pick<Variant, 'target' | 'sidecars' | 'share'>> {
  await runCommand('bash', [join(CHECKOUT, 'scripts', 'prepare.sh'), 'haproxy'], { timeoutMs: 300_000 })
  const certificates = join(folder, 'certificates')
  await makeCertificates(certificates)
  const address = server.network.addresses[0] ?? ''
  const sidecars = {
    server: startHaproxy(server, 'haproxy-server', certificates, address),
    client: startHaproxy(client, 'haproxy-client', certificates, address),
  }
  const target = { client, address: '127.0.0.1', port: LOCAL_PORT }
  await awaitChain(load, target)
  return { target, sidecars, share: SHARE }
}
