/** load.c: compiled once, run in Pods. */
import { join } from 'node:path'
import { runCommand } from '../../lab/command.ts'
import type { RunningPod } from '../../lab/pod.ts'
import { compile, inside } from '../lab/programs.ts'

/** Where `load server` echoes, and where it sinks. */
export const ECHO_PORT = 7000
export const SINK_PORT = 7001

/** What `load connect` prints; times in microseconds. */
export interface LoadFigures {
  readonly connections: number
  readonly succeeded: number
  readonly failed: number
  /** Neither succeeded nor failed within a minute. */
  readonly unfinished: number
  readonly stalls: number
  readonly perSecond: number
  readonly echoP50: number
  readonly echoP99: number
  readonly connectP50: number
  readonly firstError: string
}

/** Compiles the load generator into a folder; returns the program's path. */
export const compileLoad = (folder: string): Promise<string> => compile(join(import.meta.dirname, 'load.c'), folder)

/** Where a client's load goes. */
export interface Target {
  readonly client: RunningPod
  readonly address: string
  readonly port: number
}

export async function connect(load: string, to: Target, count: number, parallel: number): Promise<LoadFigures> {
  const command = [load, 'connect', to.address, String(to.port), String(count), String(parallel)]
  return JSON.parse(await runCommand('ip', inside(to.client, ...command), { timeoutMs: 70_000 }))
}

/** Gigabits per second into the sink. */
export async function bulk(load: string, to: Target, seconds: number): Promise<number> {
  const command = [load, 'bulk', to.address, String(to.port + 1), String(seconds)]
  return JSON.parse(await runCommand('ip', inside(to.client, ...command))).gigabitsPerSecond
}
