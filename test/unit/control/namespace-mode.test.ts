import { describe, expect, it } from '@jest/globals'
import type { Mode } from '../../../api/identity.ts'
import { createModes, type NamespaceMode, readNamespaceMode } from '../../../sidecar/control/namespace-mode.ts'

const MODES: readonly Mode[] = ['off', 'audit', 'enforce']

function modeOf(ofPod: Mode, ofNamespace?: NamespaceMode): Mode | undefined {
  const told: Mode[] = []
  const modes = createModes(ofPod, (mode) => void told.push(mode))
  if (ofNamespace === undefined) modes.setOfPod(ofPod)
  else modes.setOfNamespace(ofNamespace)
  return told.at(-1)
}

describe('the mode that holds', () => {
  it('is the stricter of what issuer and namespace say', () => {
    expect(MODES.map((ofPod) => MODES.map((mode) => modeOf(ofPod, { mode })))).toEqual([
      ['off', 'audit', 'enforce'],
      ['audit', 'audit', 'enforce'],
      ['enforce', 'enforce', 'enforce'],
    ])
    expect(MODES.map((ofPod) => modeOf(ofPod))).toEqual(MODES)
  })

  it('is that of break-glass, however strict all others are', () => {
    for (const breakGlass of ['audit', 'off'] as const) {
      for (const ofPod of MODES) for (const mode of MODES) expect(modeOf(ofPod, { mode, breakGlass })).toBe(breakGlass)
    }
  })
})

describe('the data of the ConfigMap', () => {
  it('says enforce, and breaks no glass, by whatever is no mode', () => {
    const enforce = { mode: 'enforce' }
    for (const data of [undefined, null, 'audit', 7, [], {}, { mode: 'Audit' }, { mode: '' }, { mode: ['off'] }]) {
      expect(readNamespaceMode(data)).toEqual(enforce)
    }
    for (const word of ['', 'enforce', 'on', 'true', 7, null]) {
      expect(readNamespaceMode({ mode: 'audit', 'break-glass': word })).toEqual({ mode: 'audit' })
    }
    expect(readNamespaceMode({ mode: 'enforce', 'break-glass': 'off' })).toEqual({ ...enforce, breakGlass: 'off' })
  })
})
