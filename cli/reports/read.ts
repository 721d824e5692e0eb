/** Asks a guarded Pod's sidecar for a report: through the API server's port-forward, which reaches its loopback. */
import { request } from 'node:http'
import type { Duplex } from 'node:stream'
import type { V1Pod } from '@kubernetes/client-node'
import { ENVIRONMENT } from '../../api/environment.ts'
import { CONTAINER_SIDECAR, SIDECAR_HEALTH_PORT } from '../../api/names.ts'
import type { ReportedPod } from '../../api/reports.ts'
import { workloadOf } from '../../api/workload.ts'
import type { OpenPort } from '../check/serving.ts'

const TIMEOUT_MS = 15_000
/** More than a sidecar's own bounds make. */
const REPORT_BYTES = 8 << 20

/** The Pod as the API server names it. */
export function reportedPodOf({ metadata = {} }: V1Pod): ReportedPod {
  const { namespace = '', name = '', labels = {} } = metadata
  return { namespace, name, workload: workloadOf(name, labels) }
}

/** The report at `path` of that Pod. Rejects with an Error whose message is the end of "could not be read: ". */
export async function readReport<Report>(
  openPort: OpenPort,
  pod: V1Pod,
  path: string,
  parse: (body: string, pod: ReportedPod) => Report,
): Promise<Report> {
  const { namespace, name } = reportedPodOf(pod)
  if (pod.status?.phase !== 'Running') throw new Error(`it is ${pod.status?.phase ?? 'not running'}`)
  const connection = await openPort(namespace, name, healthPortOf(pod))
  try {
    const { status, body } = await get(connection, path)
    if (status === 404) throw new Error('its sidecar is of a version that has no such report')
    if (status !== 200) throw new Error(`its sidecar answers ${status}`)
    try {
      return parse(body, reportedPodOf(pod))
    } catch (error) {
      throw new Error(`its sidecar gives no report: ${(error as Error).message}`)
    }
  } finally {
    connection.destroy()
  }
}

function healthPortOf({ spec }: V1Pod): number {
  const sidecar = spec?.initContainers?.find(({ name }) => name === CONTAINER_SIDECAR)
  const port = Number(sidecar?.env?.find(({ name }) => name === ENVIRONMENT.healthPort)?.value)
  return Number.isInteger(port) && port > 0 ? port : SIDECAR_HEALTH_PORT
}

function get(connection: Duplex, path: string): Promise<{ status: number; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>()
  const timer = setTimeout(() => asked.destroy(new Error(`no answer within ${TIMEOUT_MS / 1_000} s`)), TIMEOUT_MS)
  const asked = request({ path, host: 'localhost', createConnection: () => connection }, (response) => {
    const parts: Buffer[] = []
    let bytes = 0
    response.on('data', (part: Buffer) => {
      bytes += part.length
      if (bytes > REPORT_BYTES) return void asked.destroy(new Error('its answer is larger than any report'))
      parts.push(part)
    })
    response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString('utf8') }))
    response.on('error', reject)
  })
  asked.on('error', reject)
  asked.end()
  return promise.finally(() => clearTimeout(timer))
}
