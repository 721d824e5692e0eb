import { describe, expect, it } from '@jest/globals'
import { parse } from 'yaml'
import { ROTATION_ERRORS } from '../../../certs/rotation/errors.ts'
import { CERTS_HELP } from '../../../cli/certs.ts'
import { WEBHOOK_METRIC_PREFIX, WEBHOOK_METRICS } from '../../../webhook/metrics.ts'
import { readText } from './checkout.ts'

const document = readText('docs/rotation.md')
const blocks = [...document.matchAll(/^```yaml\n(?<text>.*?)^```$/gms)].map(({ groups }) => groups?.text ?? '')

interface Alerts {
  groups: { name: string; rules: { alert: string; expr: string; annotations: { summary: string } }[] }[]
}

describe('docs/rotation.md', () => {
  it('has alerts by metrics and labels that the webhook has', () => {
    const text = blocks.find((block) => block.startsWith('groups:')) ?? ''
    const rules = (parse(text) as Alerts).groups.flatMap((group) => group.rules)
    expect(rules.length).toBeGreaterThan(5)
    for (const { expr, annotations } of rules) {
      const names = [...expr.matchAll(/synguard_\w+/g)].map(([name]) => name.slice(WEBHOOK_METRIC_PREFIX.length))
      const known: Readonly<Record<string, unknown>> = WEBHOOK_METRICS
      expect(names.filter((name) => !Object.hasOwn(known, name))).toEqual([])
      const labels = [...expr.matchAll(/(?<label>\w+)=~?"/g)].map(({ groups }) => groups?.label)
      const has = JSON.stringify(names.map((name) => known[name]))
      expect(labels.filter((label) => !has.includes(`"${label}"`))).toEqual([])
      expect(annotations.summary).toMatch(/./)
    }
  })

  it('names codes that exist, each wait among them', () => {
    const named = new Set(
      [...document.matchAll(/`(?<code>rotation-[a-z-]+)`/g)].map(({ groups }) => groups?.code ?? ''),
    )
    expect([...named].filter((code) => !(code in ROTATION_ERRORS))).toEqual([])
    const waits = Object.keys(ROTATION_ERRORS).filter((code) => code.startsWith('rotation-waits-'))
    expect(waits.filter((code) => !named.has(code))).toEqual([])
  })

  it('names commands that synguard certs has', () => {
    const commands = [...document.matchAll(/synguard certs (?<verb>\w+)/g)].map(({ groups }) => groups?.verb)
    expect(commands.length).toBeGreaterThan(10)
    expect(commands.filter((verb) => !CERTS_HELP.includes(`synguard certs ${verb}`))).toEqual([])
  })
})
