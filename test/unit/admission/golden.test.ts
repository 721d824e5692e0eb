import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { parseAllDocuments, stringify } from 'yaml'
import { inject } from '../../../webhook/admission/inject.ts'
import { createPatch } from '../../../webhook/admission/patch.ts'
import { parsePod } from '../../../webhook/admission/pod.ts'
import { applyPatch } from './json-patch.ts'
import { SETTINGS } from './subjects.ts'

const FOLDER = join(import.meta.dirname, '../../fixtures/inject')
const CASES = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.input.yaml'))
  .map((file) => file.replace('.input.yaml', ''))

/** A case is a Namespace and a Pod. */
function readCase(name: string) {
  const [namespace, pod] = parseAllDocuments(readFileSync(join(FOLDER, `${name}.input.yaml`), 'utf8')).map((document) =>
    document.toJS(),
  )
  const { metadata } = namespace
  return {
    pod: parsePod(pod),
    facts: { name: metadata.name, labels: metadata.labels ?? {}, annotations: metadata.annotations ?? {} },
  }
}

describe('golden files of injection (UPDATE_GOLDEN=1 renews them)', () => {
  it.each(CASES)('%s', (name) => {
    const { pod, facts } = readCase(name)
    const { pod: result, ...outcome } = { pod: undefined, ...inject(pod, facts, SETTINGS) }
    const documents = result === undefined ? [outcome] : [outcome, result]
    const text = documents
      .map((document) => stringify(document, { lineWidth: 0, aliasDuplicateObjects: false }))
      .join('---\n')
    const golden = join(FOLDER, `${name}.golden.yaml`)
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(golden, text)
    expect(text).toBe(readFileSync(golden, 'utf8'))
  })

  it.each(CASES)('%s: the patch gives that very Pod, and injecting it again changes nothing', (name) => {
    const { pod, facts } = readCase(name)
    const first = inject(pod, facts, SETTINGS)
    if (first.kind === 'refused') {
      expect(first.causes.length).toBeGreaterThan(0)
      return
    }
    expect(applyPatch(pod, createPatch(pod, first.pod))).toEqual(first.pod)
    expect(inject(first.pod, facts, SETTINGS)).toEqual(first)
  })
})
