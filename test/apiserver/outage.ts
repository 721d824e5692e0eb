/** Takes a control plane's API server away, gives it back, and writes behind its back. */
import { execFileSync } from 'node:child_process'
import { cpSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { until } from '../contract/stage.ts'
import type { ControlPlane } from './control-plane.ts'

/**
 * Kills kube-apiserver, which otherwise waits for its watches to end; the result starts it again over the same etcd with
 * the same command line.
 */
export async function killApiServer(control: ControlPlane): Promise<() => Promise<void>> {
  const start = await kill(control, 'apiserver')
  return async () => {
    start()
    const ping = { method: 'GET', path: '/readyz/ping' } as const
    await until('the API server', () => {
      // As the kubelet would: one that ends while it starts is started again.
      if (stateOf(pidOf(control, 'apiserver')) === undefined) start()
      return control.admin.send(ping).then(undefined, isAnswer)
    })
  }
}

/** Kills a process of the control plane; the result starts it again with the same command line. */
async function kill(control: ControlPlane, name: 'apiserver' | 'etcd'): Promise<() => void> {
  const { statePath } = control
  const pidFile = join(statePath, `${name}.pid`)
  const pid = pidOf(control, name)
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  process.kill(pid, 'SIGKILL')
  await until(`${name} to end`, () => stateOf(pid) === undefined)
  return () => {
    const script = 'setsid "$@" </dev/null >>"$LOG" 2>&1 & echo "$! $(cut -d" " -f22 /proc/$!/stat)" >"$PID_FILE"'
    const env = { ...process.env, LOG: join(statePath, 'log', `${name}.log`), PID_FILE: pidFile }
    execFileSync('bash', ['-c', script, 'restart', ...words], { env })
  }
}

function pidOf({ statePath }: ControlPlane, name: 'apiserver' | 'etcd'): number {
  return Number(readFileSync(join(statePath, `${name}.pid`), 'utf8').split(' ')[0])
}

/** Stops API server and etcd, has `change` its way with etcd's folder, and starts both again. */
async function withEtcdStopped(control: ControlPlane, change: (folder: string) => void): Promise<void> {
  const startApiServer = await killApiServer(control)
  const startEtcd = await kill(control, 'etcd')
  change(join(control.statePath, 'etcd'))
  startEtcd()
  await startApiServer()
}

/** A copy of all that the cluster is; the result puts it back, whatever happened since: revisions begin anew there. */
export async function backUp(control: ControlPlane): Promise<() => Promise<void>> {
  const copy = join(control.statePath, 'etcd-copy')
  await withEtcdStopped(control, (folder) => cpSync(folder, copy, { recursive: true }))
  return () =>
    withEtcdStopped(control, (folder) => {
      rmSync(folder, { recursive: true })
      renameSync(copy, folder)
    })
}

/** A restarted API server has no history: watches from before are refused. */
export async function restartApiServer(control: ControlPlane): Promise<void> {
  const start = await killApiServer(control)
  await start()
}

/** /readyz answers in plain text, which is no JSON: an answer all the same. */
const isAnswer = (error: { code?: string }) => error.code === 'api-answer'

/** The state of a process; undefined where it ended. */
function stateOf(pid: number): string | undefined {
  try {
    const state = readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[2]
    return state === 'Z' ? undefined : state
  } catch {
    return undefined
  }
}

/**
 * Stores an object as it is, past what the API server validates when it is written, as another version of it could have:
 * what is read from etcd is not validated.
 */
export async function storeUnvalidated(control: ControlPlane, key: string, object: unknown): Promise<void> {
  await storeAllUnvalidated(control, [{ key, object }])
}

/** So many requests of a transaction etcd takes at most. */
const TRANSACTION_REQUESTS = 128

/** The same of many objects, much faster than the API server takes them. */
export async function storeAllUnvalidated(
  { port }: ControlPlane,
  objects: readonly { readonly key: string; readonly object: unknown }[],
): Promise<void> {
  const encode = (text: string) => Buffer.from(text).toString('base64')
  for (let at = 0; at < objects.length; at += TRANSACTION_REQUESTS) {
    const success = objects.slice(at, at + TRANSACTION_REQUESTS).map(({ key, object }) => ({
      requestPut: { key: encode(`/registry/${key}`), value: encode(JSON.stringify(object)) },
    }))
    const response = await fetch(`http://127.0.0.1:${port + 1}/v3/kv/txn`, {
      method: 'POST',
      body: JSON.stringify({ success }),
    })
    if (!response.ok) throw new Error(`etcd: ${response.status} ${await response.text()}`)
  }
}

/** Makes etcd forget all history before now. */
export async function compact({ port }: ControlPlane): Promise<void> {
  const post = async (path: string, body: unknown) =>
    (await fetch(`http://127.0.0.1:${port + 1}/v3/kv/${path}`, { method: 'POST', body: JSON.stringify(body) })).json()
  const { header } = (await post('range', { key: Buffer.from('a').toString('base64') })) as {
    header: { revision: string }
  }
  await post('compaction', { revision: header.revision, physical: true })
}
