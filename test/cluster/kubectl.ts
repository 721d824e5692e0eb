/** kubectl, as whoever uses a cluster runs it. */
import { execFile, spawn } from 'node:child_process'
import { stringify } from 'yaml'

export interface Output {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** kubectl itself may hang where the API server is away. */
const LIMIT_MS = 170_000

/** Runs kubectl; never rejects. */
export function tryKubectl(parameters: readonly string[], input = ''): Promise<Output> {
  return new Promise((resolve) => {
    const options = { timeout: LIMIT_MS, maxBuffer: 64 << 20 }
    const child = execFile('kubectl', [...parameters], options, (failure, stdout, stderr) => {
      const code = failure === null ? 0 : typeof failure.code === 'number' ? failure.code : 255
      resolve({ code, stdout, stderr: stderr || (failure?.message ?? '') })
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/** Runs kubectl; rejects with what it said where it fails. */
export async function kubectl(...parameters: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await tryKubectl(parameters)
  if (code !== 0) throw new Error(`kubectl ${parameters.join(' ')}: ${stderr || stdout}`)
  return stdout
}

export async function getJson<Kind>(...parameters: readonly string[]): Promise<Kind> {
  return JSON.parse(await kubectl('get', '-o', 'json', ...parameters)) as Kind
}

/** Applies objects; in a namespace made this moment the API server may refuse the first of them for a while. */
export async function apply(...objects: readonly object[]): Promise<void> {
  const text = objects.map((object) => stringify(object)).join('---\n')
  let said = ''
  for (let attempt = 0; attempt < 5; attempt++) {
    const { code, stderr } = await tryKubectl(['apply', '-f', '-'], text)
    if (code === 0) return
    said = stderr
    await pause(1_000)
  }
  throw new Error(said)
}

export const pause = (milliseconds: number): Promise<void> => new Promise((done) => setTimeout(done, milliseconds))

/** Runs `check` until it resolves with anything but undefined or false; rejects with the last reason after `seconds`. */
export async function until<Value>(
  what: string,
  check: () => Promise<Value | undefined | false>,
  seconds = 60,
): Promise<Value> {
  const end = Date.now() + seconds * 1_000
  let reason = ''
  for (;;) {
    try {
      const value = await check()
      if (value !== undefined && value !== false) return value
    } catch (error) {
      reason = (error as Error).message
    }
    if (Date.now() > end) throw new Error(`waited ${seconds} s in vain for ${what}. ${reason}`)
    await pause(300)
  }
}

/** A kubectl that keeps running, such as port-forward; `stop` ends it. */
export function startKubectl(parameters: readonly string[]) {
  const child = spawn('kubectl', [...parameters], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
  }
  const ended = new Promise<number | null>((done) => child.once('exit', done))
  return {
    said: () => said,
    /** The exit code; null where it was stopped. */
    ended,
    async stop(): Promise<void> {
      if (child.exitCode === null) child.kill('SIGKILL')
      await ended
    },
  }
}
