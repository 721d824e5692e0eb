import { connect as connectTcp } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect } from 'node:tls'
import { type InstallationFacts, known, type Seen, type ServedCertificate, seen, unseen } from './facts.ts'
import { eachOf } from './look.ts'

/** Opens a connection to a port of a Pod, as port-forward does. */
export type OpenPort = (namespace: string, pod: string, port: number) => Promise<Duplex>

const TIMEOUT_MS = 10_000
/** Enough to see that one differs. */
const REPLICAS = 5
const WIDTH = 3

/**
 * The certificate that each ready replica shows, by a TLS handshake through the API server's port-forward: nothing secret
 * is read. A webhook outside of the cluster is connected to directly.
 */
export async function gatherCertificates(
  installation: Omit<InstallationFacts, 'certificates'>,
  openPort: OpenPort,
): Promise<Seen<readonly ServedCertificate[]>> {
  const { namespace, service, configurations, endpoints } = installation
  const urls = [...new Set((known(configurations) ?? []).flatMap(({ webhooks = [] }) => webhooks).map(urlOf))].filter(
    (url) => url !== undefined,
  )
  if (urls.length > 0) return seen(await eachOf(urls, WIDTH, showByUrl))
  if (!endpoints.seen) return endpoints
  const replicas = endpoints.value.flatMap((slice) => {
    const port = slice.ports?.[0]?.port
    return (slice.endpoints ?? []).flatMap(({ conditions, targetRef }) =>
      conditions?.ready !== false && targetRef?.name !== undefined && port !== undefined
        ? [{ pod: targetRef.name, port }]
        : [],
    )
  })
  if (replicas.length === 0) return unseen('no replica is ready')
  const names = [`${service}.${namespace}.svc`]
  return seen(
    await eachOf(replicas.slice(0, REPLICAS), WIDTH, async ({ pod, port }) => ({
      replica: pod,
      names,
      certificatePem: await shake(() => openPort(namespace, pod, port), names[0]),
    })),
  )
}

function urlOf({ clientConfig }: { clientConfig: { url?: string } }): string | undefined {
  return clientConfig.url
}

async function showByUrl(text: string): Promise<ServedCertificate> {
  const url = new URL(text)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const open = async () => connectTcp({ host, port: Number(url.port || 443) })
  return { replica: url.host, names: [host], certificatePem: await shake(open, undefined) }
}

/** The certificate shown in a handshake, as PEM, whoever made it: judging it is for the checks. */
async function shake(open: () => Promise<Duplex>, servername: string | undefined): Promise<Seen<string>> {
  let socket: Duplex
  try {
    socket = await open()
  } catch (error) {
    return unseen((error as Error).message)
  }
  return new Promise((resolve) => {
    const options: ConnectionOptions = { socket, rejectUnauthorized: false, ...(servername && { servername }) }
    const tls = connect(options, () => {
      const certificate = tls.getPeerX509Certificate()
      end(certificate === undefined ? unseen('it shows no certificate') : seen(certificate.toString()))
    })
    const timer = setTimeout(() => end(unseen(`no TLS handshake within ${TIMEOUT_MS / 1_000} s`)), TIMEOUT_MS)
    function end(result: Seen<string>): void {
      clearTimeout(timer)
      tls.destroy()
      socket.destroy()
      resolve(result)
    }
    tls.on('error', (error) =>
      end(unseen(`no TLS handshake (${(error as NodeJS.ErrnoException).code ?? error.message})`)),
    )
    tls.on('close', () => end(unseen('the connection was closed before its TLS handshake')))
    socket.on('error', (error) => end(unseen(error.message)))
  })
}
