import { describe, expect, it } from '@jest/globals'
import type { V1Namespace } from '@kubernetes/client-node'
import { ANNOTATION_BREAK_GLASS, ANNOTATION_MODE } from '../../../api/names.ts'
import { breakGlassOf, namespaceMode, stricterMode } from '../../../webhook/mode.ts'
import { breakGlassEvent } from '../../../webhook/namespaces/break-glass.ts'

const saying = (mode: string) => ({ [ANNOTATION_MODE]: mode })
const pulled = (reason: string) => ({ [ANNOTATION_BREAK_GLASS]: reason })

describe('the mode of a namespace', () => {
  it('is its own word, else the default; a word that is no mode is enforce', () => {
    const said = [undefined, {}, saying('audit'), saying('off'), saying('Audit'), saying('')]
    expect(said.map((annotations) => namespaceMode(annotations, 'audit'))).toEqual([
      'audit',
      'audit',
      'audit',
      'off',
      'enforce',
      'enforce',
    ])
  })

  it('gives way to a stricter Pod, and a laxer Pod to it', () => {
    const modes = ['off', 'audit', 'enforce']
    const table = modes.map((pod) => modes.map((namespace) => stricterMode(saying(pod), saying(namespace))))
    expect(table).toEqual([
      ['off', 'audit', 'enforce'],
      ['audit', 'audit', 'enforce'],
      ['enforce', 'enforce', 'enforce'],
    ])
    expect(stricterMode({}, saying('off'))).toBe('off')
    expect(stricterMode(saying('audit'), undefined, 'off')).toBe('audit')
  })
})

describe('break-glass', () => {
  it('audits, or is off where the reason says so first; without a reason as well', () => {
    const values = ['INC-7: shop is down', 'off: INC-7', 'off:INC-7', 'off', 'offline', '', ' ']
    expect(values.map((value) => breakGlassOf(pulled(value)))).toEqual([
      { mode: 'audit', reason: 'INC-7: shop is down' },
      { mode: 'off', reason: 'INC-7' },
      { mode: 'off', reason: 'INC-7' },
      { mode: 'off', reason: 'no reason given' },
      { mode: 'audit', reason: 'offline' },
      { mode: 'audit', reason: 'no reason given' },
      { mode: 'audit', reason: 'no reason given' },
    ])
    expect([breakGlassOf(undefined), breakGlassOf(saying('off'))]).toEqual([undefined, undefined])
  })

  it('is told within an Event’s bounds, by one name for a pull and another for the next', () => {
    const at = new Date('2026-01-01T00:00:00Z')
    const written = (time: string): V1Namespace => ({
      metadata: {
        name: 'shop',
        uid: 'u1',
        managedFields: [
          { manager: 'kubectl-label', fieldsV1: { 'f:metadata': { 'f:labels': {} } } },
          {
            manager: 'kubectl-annotate',
            time: time as unknown as Date,
            fieldsV1: { 'f:metadata': { 'f:annotations': { [`f:${ANNOTATION_BREAK_GLASS}`]: {} } } },
          },
        ],
      },
    })
    const event = (time: string) => breakGlassEvent(written(time), { mode: 'audit', reason: 'x'.repeat(200_000) }, at)
    const first = event('2026-01-01T00:00:00Z')
    expect(first.message.length).toBeLessThan(1_024)
    expect(first.message).toContain('Set by kubectl-annotate at 2026-01-01T00:00:00.000Z; take it away')
    expect(event('2026-01-01T00:00:00Z').metadata).toEqual(first.metadata)
    expect(event('2026-01-01T00:00:01Z').metadata.name).not.toBe(first.metadata.name)
    const bare = breakGlassEvent({ metadata: { name: 'shop' } }, { mode: 'off', reason: 'why' }, at)
    expect(bare.message).toContain('(off) by the annotation synguard.io/break-glass: why. Set by unknown; take it')
  })
})
