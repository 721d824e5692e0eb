import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { compareRules, encodeRemoval, encodeRestore, parseSaved } from '../../../sidecar/rules/restore.ts'
import type { TableRules } from '../../../sidecar/rules/ruleset.ts'

const TABLES: readonly TableRules[] = [
  {
    table: 'filter',
    chains: [{ name: 'SYNGUARD-IN', rules: ['-i lo -j RETURN', '-p tcp -m tcp --tcp-flags SYN SYN -j DROP'] }],
    jumps: [{ from: 'INPUT', to: 'SYNGUARD-IN' }],
  },
]

const saved = (...lines: string[]) => parseSaved(['*filter', ':INPUT ACCEPT [0:0]', ...lines, 'COMMIT', ''].join('\n'))
const OWN_CHAIN = [
  ':SYNGUARD-IN - [0:0]',
  '-A SYNGUARD-IN -i lo -j RETURN',
  '-A SYNGUARD-IN -p tcp -m tcp --tcp-flags SYN SYN -j DROP',
]
const INSTALLED = saved('-A INPUT -j SYNGUARD-IN', ...OWN_CHAIN)

describe('parseSaved', () => {
  it('reads tables, chains and rules, and leaves out comments, counters and policies', () => {
    const text =
      '# Generated\n*nat\n:OUTPUT ACCEPT [1:2]\n:X - [0:0]\n[3:4] -A X -p 6 -j RETURN\nCOMMIT\n*raw\nCOMMIT\n'
    expect(parseSaved(text)).toEqual(
      new Map([
        [
          'nat',
          new Map([
            ['OUTPUT', []],
            ['X', ['-p tcp -j RETURN']],
          ]),
        ],
        ['raw', new Map()],
      ]),
    )
  })

  it('takes any text without throwing', () => {
    fc.assert(fc.property(fc.string(), (text) => parseSaved(text) instanceof Map))
  })
})

describe('encodeRestore', () => {
  const body = `*filter\n${OWN_CHAIN.join('\n')}\n`

  it('jumps first, after the chain is filled', () => {
    expect(encodeRestore(TABLES, new Map())).toBe(`${body}-I INPUT 1 -j SYNGUARD-IN\nCOMMIT\n`)
  })

  it('keeps a jump that is in its place', () => {
    expect(encodeRestore(TABLES, INSTALLED)).toBe(`${body}COMMIT\n`)
  })

  it.each([
    ['behind another rule', ['-A INPUT -j ACCEPT', '-A INPUT -j SYNGUARD-IN'], ['-D INPUT -j SYNGUARD-IN']],
    ['repeated', ['-A INPUT -j SYNGUARD-IN', '-A INPUT -j SYNGUARD-IN'], Array(2).fill('-D INPUT -j SYNGUARD-IN')],
    ['narrowed', ['-A INPUT -i eth0 -j SYNGUARD-IN'], ['-D INPUT -i eth0 -j SYNGUARD-IN']],
  ])('replaces a jump that is %s', (_how, present, deleted) => {
    expect(encodeRestore(TABLES, saved(...present, ...OWN_CHAIN))).toBe(
      `${body}${deleted.join('\n')}\n-I INPUT 1 -j SYNGUARD-IN\nCOMMIT\n`,
    )
  })

  it('leaves a chain alone whose name only begins like ours', () => {
    const present = saved('-A INPUT -j SYNGUARD-INNER', '-A INPUT -j SYNGUARD-IN', ...OWN_CHAIN)
    expect(encodeRestore(TABLES, present)).toBe(`${body}-D INPUT -j SYNGUARD-IN\n-I INPUT 1 -j SYNGUARD-IN\nCOMMIT\n`)
  })
})

describe('encodeRemoval', () => {
  it('has nothing to do where nothing is ours', () => {
    expect(encodeRemoval(saved('-A INPUT -j ACCEPT'))).toBe(undefined)
  })

  it("removes our chains and what leads to them, and no rule of others'", () => {
    const present = saved(
      ':THEIRS - [0:0]',
      '-A INPUT -j SYNGUARD-IN',
      '-A INPUT -j THEIRS',
      '-A THEIRS -s 10.0.0.1/32 -g SYNGUARD-IN',
      ...OWN_CHAIN,
    )
    expect(encodeRemoval(present)).toBe(
      [
        '*filter',
        '-D INPUT -j SYNGUARD-IN',
        '-D THEIRS -s 10.0.0.1/32 -g SYNGUARD-IN',
        '-F SYNGUARD-IN',
        '-X SYNGUARD-IN',
        'COMMIT\n',
      ].join('\n'),
    )
  })
})

describe('compareRules', () => {
  it.each([
    ['nothing where all is in place', INSTALLED, []],
    ["nothing for others' rules behind ours", saved('-A INPUT -j SYNGUARD-IN', '-A INPUT -j DROP', ...OWN_CHAIN), []],
    [
      'a missing rule and one too many',
      saved(
        '-A INPUT -j SYNGUARD-IN',
        ':SYNGUARD-IN - [0:0]',
        '-A SYNGUARD-IN -i lo -j RETURN',
        '-A SYNGUARD-IN -j ACCEPT',
      ),
      ['filter SYNGUARD-IN: missing: -p tcp --tcp-flags SYN SYN -j DROP', 'filter SYNGUARD-IN: unexpected: -j ACCEPT'],
    ],
    [
      'another order',
      saved('-A INPUT -j SYNGUARD-IN', ...[0, 2, 1].map((index) => OWN_CHAIN[index] ?? '')),
      ['filter SYNGUARD-IN: the rules are in another order or repeated'],
    ],
    [
      'a jump behind another rule',
      saved('-A INPUT -j ACCEPT', '-A INPUT -j SYNGUARD-IN', ...OWN_CHAIN),
      ['filter INPUT: the jump to SYNGUARD-IN is not the first rule'],
    ],
    ['a missing jump', saved(...OWN_CHAIN), ['filter INPUT: 0 jumps to SYNGUARD-IN instead of one']],
    [
      'an unknown chain of our name',
      saved('-A INPUT -j SYNGUARD-IN', ...OWN_CHAIN, ':SYNGUARD-X - [0:0]'),
      ['filter SYNGUARD-X: a chain that we do not know'],
    ],
    [
      'an empty kernel',
      new Map(),
      ['filter SYNGUARD-IN: the chain is missing', 'filter INPUT: 0 jumps to SYNGUARD-IN instead of one'],
    ],
  ] as const)('reports %s', (_what, present, differences) => {
    expect(compareRules(TABLES, present)).toEqual(differences)
  })
})
