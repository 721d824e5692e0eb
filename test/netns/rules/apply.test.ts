import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { createPair, inside, type Pair, runScript } from './namespaces.ts'

let pair: Pair

beforeAll(async () => {
  pair = await createPair()
})

afterAll(async () => await pair?.remove())

const step = (name: string, backend: string, more: object = {}) =>
  runScript(pair.left, 'rules-step.ts', name, { backend, ...more })

/** All rules of both families, without comments and counters. */
async function save(backend: string): Promise<string[]> {
  const texts = await Promise.all(
    ['iptables', 'ip6tables'].map((program) => inside(pair.left, [`${program}-${backend}-save`])),
  )
  return texts.flatMap(({ stdout }) =>
    stdout
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.replace(/\[\d+:\d+\]/, '')),
  )
}

const iptables = async (backend: string, ...parameters: string[]): Promise<void> => {
  const { code, stderr } = await inside(pair.left, [`iptables-${backend}`, ...parameters])
  if (code !== 0) throw new Error(stderr)
}

describe.each(['nft', 'legacy'])('with iptables-%s', (backend) => {
  afterEach(async () => {
    await step('remove', backend)
    for (const table of ['filter', 'mangle']) await iptables(backend, '-t', table, '-F')
  })

  it('applying twice is applying once, and reads back equal', async () => {
    await step('apply', backend)
    const once = await save(backend)
    expect(await step('differences', backend)).toEqual([])
    await step('apply', backend)
    expect(await save(backend)).toEqual(once)
    expect(await step('find', backend)).toEqual({ backend, families: [4, 6] })
  })

  it("others' rules in the same tables survive applying and removing", async () => {
    await iptables(backend, '-A', 'INPUT', '-p', 'tcp', '--dport', '99', '-j', 'ACCEPT')
    await iptables(backend, '-t', 'mangle', '-A', 'OUTPUT', '-p', 'udp', '-j', 'MARK', '--set-mark', '7')
    const foreign = (lines: string[]) => lines.filter((line) => /^-A (INPUT|OUTPUT) /.test(line))
    const before = foreign(await save(backend))
    await step('apply', backend)
    expect(await step('differences', backend)).toEqual([])
    await step('remove', backend)
    expect(foreign(await save(backend))).toEqual(before)
    expect(before.length).toBe(2)
  })

  it('removing leaves no rule and no chain', async () => {
    await step('apply', backend)
    expect(await step('remove', backend)).toEqual([`${backend} IPv4`, `${backend} IPv6`])
    const left = (await save(backend)).filter((line) => line.startsWith('-A') || line.includes('SYNGUARD'))
    expect(left).toEqual([])
    expect(await step('remove', backend)).toEqual([])
    expect(await step('find', backend)).toBe(null)
  })

  it('reports a deleted rule and a displaced jump, and applying heals both', async () => {
    await step('apply', backend)
    await iptables(backend, '-t', 'mangle', '-D', 'SYNGUARD-OUT', '2')
    await iptables(backend, '-I', 'INPUT', '1', '-j', 'ACCEPT')
    expect(await step('differences', backend)).toEqual([
      'IPv4 filter INPUT: the jump to SYNGUARD-IN is not the first rule',
      'IPv4 mangle SYNGUARD-OUT: missing: -o lo -j RETURN',
    ])
    await step('apply', backend)
    expect(await step('differences', backend)).toEqual([])
  })

  it('another setting replaces the rules whole', async () => {
    await step('apply', backend)
    await step('apply', backend, { options: { refusal: 'drop', queueTcp: 5 } })
    expect(await step('differences', backend, { options: { refusal: 'drop', queueTcp: 5 } })).toEqual([])
  })

  it('the choice passes over backends that do not run or refuse a table, says why, and removes what they left', async () => {
    expect(await step('choose', backend)).toEqual({
      backend,
      families: [4, 6],
      passedOver: [
        'plain, IPv4: no-such-save is not installed',
        'plain, IPv6: x is not installed',
        expect.stringMatching(/^plain, IPv4: .*half-restore: the next table is refused$/),
        'plain, IPv6: x is not installed',
      ],
    })
    const [other] = ['nft', 'legacy'].filter((name) => name !== backend)
    const left = await save(other ?? '')
    expect(left.filter((line) => line.includes('SYNGUARD'))).toEqual([])
  })
})
