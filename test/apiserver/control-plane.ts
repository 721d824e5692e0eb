/** A real etcd and kube-apiserver for a test file, on ports of their own and with nothing in them. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { type ApiClient, createApiClient } from '../../kubernetes/client.ts'
import { loadConnection } from '../../webhook/kubernetes/connection.ts'

export const CLUSTER_SCRIPTS = resolve(import.meta.dirname, '..', 'cluster')

export interface ControlPlane {
  readonly kubeconfigPath: string
  readonly port: number
  readonly statePath: string
  readonly kubectlPath: string
  /** May do anything. */
  readonly admin: ApiClient
  stop(): Promise<void>
}

const run = promisify(execFile)
/** The API server is ready in 3 s; on a machine that does much else it takes longer. */
export const CONTROL_PLANE_TIMEOUT_MS = 120_000

/** Starts a control plane; it ends with stop(), and by itself once this process is gone. */
export async function startControlPlane(flags = ''): Promise<ControlPlane> {
  const statePath = mkdtempSync(join(tmpdir(), 'synguard-apiserver-'))
  const port = await findPorts()
  const env = {
    ...process.env,
    SYNGUARD_CLUSTER_STATE: statePath,
    API_PORT: String(port),
    OWNER_PID: String(process.pid),
    APISERVER_EXTRA: flags,
  }
  try {
    await run(join(CLUSTER_SCRIPTS, 'up'), { env, timeout: CONTROL_PLANE_TIMEOUT_MS })
  } catch (error) {
    rmSync(statePath, { recursive: true, force: true })
    throw new Error(`no control plane: ${(error as { stderr?: string }).stderr || (error as Error).message}`)
  }
  const kubeconfigPath = join(statePath, 'conf', 'admin.kubeconfig')
  const connection = loadConnection(kubeconfigPath)
  return {
    kubeconfigPath,
    port,
    statePath,
    kubectlPath: join(
      process.env.SYNGUARD_CLUSTER ?? join(homedir(), '.cache', 'synguard', 'cluster'),
      'bin',
      'kubectl',
    ),
    admin: createApiClient(connection, { userAgent: 'synguard-test' }),
    async stop() {
      connection.close()
      await run(join(CLUSTER_SCRIPTS, 'down'), { env })
      rmSync(statePath, { recursive: true, force: true })
    },
  }
}

/** Three free ports in a row below the ephemeral ones: the API server's and etcd's two. */
async function findPorts(): Promise<number> {
  for (let attempt = 0; attempt < 50; attempt++) {
    const first = 20_000 + 3 * Math.floor(Math.random() * 4_000)
    const free = await Promise.all([first, first + 1, first + 2].map(isFree))
    if (free.every(Boolean)) return first
  }
  throw new Error('no free ports')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((done) => {
    const server = createServer()
    server.once('error', () => done(false))
    server.listen(port, '127.0.0.1', () => server.close(() => done(true)))
  })
}
