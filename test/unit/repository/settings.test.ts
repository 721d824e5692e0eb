import { describe, expect, it } from '@jest/globals'
import * as names from '../../../api/names.ts'
import { DEFAULT_INJECTION_SETTINGS } from '../../../webhook/admission/settings.ts'
import { parseInstallation } from '../../../webhook/installation.ts'
import { readText } from './checkout.ts'

/** The first two columns of a table's rows, of the section below that heading. */
function rowsOf(heading: string): [string, string][] {
  const [, section = ''] = readText('docs/settings.md').split(`## ${heading}\n`)
  const rows = (section.split('\n## ')[0] ?? '').matchAll(/^\| `(\S+)` \| ([^|]*)\|/gm)
  return [...rows].map(([, name = '', value = '']) => [name, value.trim()])
}

/** Paths and values as YAML flow text, of objects whose fields are settings of their own. */
function flatten(value: object, at: string, whole: readonly string[] = []): [string, string][] {
  return Object.entries(value).flatMap(([name, inner]) => {
    const path = `${at}${name}`
    const isSection = typeof inner === 'object' && !Array.isArray(inner) && !whole.includes(path)
    return isSection ? flatten(inner, `${path}.`, whole) : [[path, `\`${JSON.stringify(inner)}\``] as [string, string]]
  })
}

describe('docs/settings.md', () => {
  it('has each setting of an installation with its default, and no other', () => {
    const installed = parseInstallation('injection: {image: x}', { SYNGUARD_NAMESPACE: 'synguard' })
    const { trustDomain, namespaceLabel, command: _, ...injection } = DEFAULT_INJECTION_SETTINGS
    const { trustDomain: _domain, namespaceLabel: _label, issuer: _issuer, ...webhook } = installed.webhook
    const { names: objects, certificateNames, certificateAddresses, drainMs } = installed
    const shared = { trustDomain, namespaceLabel, certificateNames, certificateAddresses, drainMs, names: objects }
    const whole = ['namespaceLabel', 'injection.policySource']
    const withDefault = flatten({ ...shared, webhook, injection }, '', whole)
    const without = [
      ...['rotateEvery', 'issuerUrl', 'webhook.issuer', 'injection.image', 'injection.issuerName'],
      ...['injection.command.init', 'injection.command.sidecar'],
    ].map((name) => [name, ''])
    expect(rowsOf('Of an installation').sort()).toEqual([...withDefault, ...without].sort())
  })

  it('has each annotation, and no other', () => {
    const annotations = Object.entries(names).flatMap(([name, text]) => (name.startsWith('ANNOTATION_') ? [text] : []))
    expect(
      rowsOf('Of namespaces and Pods')
        .map(([name]) => name)
        .sort(),
    ).toEqual(annotations.sort())
  })
})
