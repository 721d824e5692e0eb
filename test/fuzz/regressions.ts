/** Inputs that once broke a law: test/fuzz/regressions/<target>/<name>.json, each tried in every `npm test`. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Finding } from './engine.ts'
import { isObject, type Json } from './values.ts'

export interface Regression {
  readonly target: string
  readonly name: string
  /** What the input once did. */
  readonly problem: string
  readonly input: Json
}

const FOLDER = join(import.meta.dirname, 'regressions')
const FOUND = join(import.meta.dirname, 'found')

export function readRegressions(): Regression[] {
  return readdirSync(FOLDER, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.json'))
    .sort()
    .map((path) => {
      const [target = '', file = ''] = path.split('/')
      const value: unknown = JSON.parse(readFileSync(join(FOLDER, path), 'utf8'))
      if (!isObject(value) || value.input === undefined || typeof value.problem !== 'string') {
        throw new Error(`${path} has no input or no problem`)
      }
      return { target, name: file.replace('.json', ''), problem: value.problem, input: value.input }
    })
}

/** Writes a finding to the folder `found`, which git ignores, in the form of a regression. Returns the path. */
export function writeFinding({ target, problem, input }: Finding, number: number): string {
  mkdirSync(FOUND, { recursive: true })
  const path = join(FOUND, `${target}-${number}.json`)
  writeFileSync(path, `${JSON.stringify({ problem, input }, null, 2)}\n`)
  return path
}
