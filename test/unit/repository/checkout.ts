/** This repository's own files, for tests that hold its documents and its structure to its code. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

export const CHECKOUT = resolve(import.meta.dirname, '..', '..', '..')

/** The folders of the product, in the order of ARCHITECTURE.md. */
export const PRODUCT = ['api', 'policy', 'certs', 'kubernetes', 'webhook', 'sidecar', 'cli', 'lab'] as const

export function readText(path: string): string {
  return readFileSync(join(CHECKOUT, path), 'utf8')
}

/** Paths of the TypeScript files below the folders, relative to the checkout. */
export function listSources(folders: readonly string[]): string[] {
  return folders
    .flatMap((folder) =>
      readdirSync(join(CHECKOUT, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
    )
    .filter((path) => path.endsWith('.ts'))
    .sort()
}

/** The rows of each table of a Markdown text, without head and rule; a cell's backquotes stay. */
export function readTables(markdown: string): string[][][] {
  const tables: string[][][] = []
  let rows: string[][] | undefined
  for (const line of markdown.split('\n')) {
    if (!line.startsWith('|')) {
      rows = undefined
      continue
    }
    const cells = line
      .slice(1, line.lastIndexOf('|'))
      .split('|')
      .map((cell) => cell.trim())
    if (rows === undefined) {
      rows = []
      tables.push(rows)
    } else if (!cells.every((cell) => /^:?-+:?$/.test(cell))) rows.push(cells)
  }
  return tables
}
