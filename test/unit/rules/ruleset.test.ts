import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import { RULES_ERRORS, RulesError } from '../../../sidecar/rules/errors.ts'
import { encodeRestore } from '../../../sidecar/rules/restore.ts'
import { type RulesetOptions, ruleset } from '../../../sidecar/rules/ruleset.ts'

const OPTIONS: RulesetOptions = { family: 4, queueTcp: 0, queueOther: 1, sidecarUid: 15900 }

/** Compares with a file of test/fixtures/rules; UPDATE_GOLDEN=1 writes it. */
function expectGolden(name: string, text: string): void {
  const path = `${import.meta.dirname}/../../fixtures/rules/${name}`
  if (process.env.UPDATE_GOLDEN === '1') writeFileSync(path, text)
  expect(text).toBe(readFileSync(path, 'utf8'))
}

describe('ruleset', () => {
  it.each([
    ['ipv4.rules', OPTIONS],
    ['ipv6.rules', { ...OPTIONS, family: 6 }],
    ['ipv4-silent.rules', { ...OPTIONS, refusal: 'drop' }],
  ] as const)('is the one of %s', (name, options) => {
    expectGolden(name, encodeRestore(ruleset(options), new Map()))
  })

  it('fills the filter table before mangle queues a packet', () => {
    expect(ruleset(OPTIONS).map(({ table }) => table)).toEqual(['filter', 'mangle'])
  })

  it('never lets the kernel pass a packet for want of a reader', () => {
    const text = encodeRestore(ruleset(OPTIONS), new Map())
    expect([...text.matchAll(/NFQUEUE --queue-num \d+$/gm)].length).toBe(4)
    expect(text.match(/queue-bypass|fail-open/)).toBeNull()
  })

  it.each([
    ['queueTcp', 65536],
    ['queueTcp', -1],
    ['queueOther', 1.5],
    ['sidecarUid', 0xffffffff],
    ['queueOther', 0],
  ])('refuses %s %d and names it', (name, value) => {
    const attempt = () => ruleset({ ...OPTIONS, [name]: value })
    expect(attempt).toThrow(RulesError)
    expect(attempt).toThrow(name)
  })

  it('describes every error code in one sentence', () => {
    for (const sentence of Object.values(RULES_ERRORS)) expect(sentence).toMatch(/^[A-Z].*\.$/)
  })
})
