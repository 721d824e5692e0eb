import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from '@jest/globals'
import { createPair, inside, type Pair } from './namespaces.ts'

let pair: Pair

beforeAll(async () => {
  pair = await createPair()
})

afterAll(async () => await pair?.remove())

const ENVIRONMENT = { SYNGUARD_POD_IPS: '10.78.0.1,fd78::1', SYNGUARD_HOST_IPS: '192.0.2.10' }

/** Runs the init step as a Pod would; gives its exit code and the fields of its one JSON line. */
async function init(
  flags: readonly string[],
  environment: Readonly<Record<string, string>> = ENVIRONMENT,
  runner: readonly string[] = [],
) {
  const command = [...runner, process.execPath, join(import.meta.dirname, '../../../sidecar/init.ts'), ...flags]
  const { code, stdout, stderr } = await inside(pair.left, command, { env: environment })
  expect(stderr).toBe('')
  const { time, ...fields } = JSON.parse(stdout)
  expect(Number.isNaN(Date.parse(time))).toBe(false)
  return { code, fields }
}

const rules = async (): Promise<string[]> =>
  (await inside(pair.left, ['iptables-nft-save'])).stdout.split('\n').filter((line) => line.startsWith('-A'))

it('installs, verifies, installs again and removes', async () => {
  const installed = {
    code: 0,
    fields: {
      level: 'info',
      component: 'init',
      message: 'rules installed',
      backend: 'nft',
      families: ['IPv4', 'IPv6'],
      refusal: 'reset',
      passedOver: [],
      replaced: [],
    },
  }
  expect(await init([])).toEqual(installed)
  expect(await init(['--verify'])).toEqual({
    code: 0,
    fields: {
      level: 'info',
      component: 'init',
      message: 'rules verified',
      backend: 'nft',
      families: ['IPv4', 'IPv6'],
      refusal: 'reset',
    },
  })
  const once = await rules()
  expect(await init([])).toEqual(installed)
  expect(await rules()).toEqual(once)
  expect((await init(['--remove'])).fields.removed).toEqual(['nft IPv4', 'nft IPv6'])
  expect(await rules()).toEqual([])
})

it('takes over from rules of the other backend', async () => {
  expect((await inside(pair.left, ['iptables-legacy', '-N', 'SYNGUARD-OLD'])).code).toBe(0)
  expect((await init([])).fields.replaced).toEqual(['legacy IPv4'])
  await init(['--remove'])
})

it.each([
  ['without the Pod addresses', { SYNGUARD_POD_IPS: '' }, 'invalid-environment', 'SYNGUARD_POD_IPS is not set'],
  [
    'with host addresses that are none',
    { SYNGUARD_HOST_IPS: 'node-1' },
    'invalid-environment',
    'SYNGUARD_HOST_IPS holds something that is no IP address',
  ],
  [
    'with an unknown refusal',
    { SYNGUARD_REFUSAL: 'ignore' },
    'invalid-environment',
    'SYNGUARD_REFUSAL is neither reset nor drop',
  ],
  [
    'with the host network',
    { SYNGUARD_HOST_IPS: '10.78.0.1' },
    'node-network-namespace',
    "the Pod's address 10.78.0.1 is its node's",
  ],
])('%s it changes nothing and says why', async (_case, change, code, message) => {
  const result = await init([], { ...ENVIRONMENT, ...change })
  expect(result).toEqual({
    code: 1,
    fields: { level: 'error', component: 'init', code, message, fix: expect.stringMatching(/\.$/) },
  })
  expect(await rules()).toEqual([])
})

/** Capabilities and user as in an injected Pod; the third only reads this checkout, which may be root's alone. */
const AS_SIDECAR = [
  'setpriv',
  ...['--reuid', '15900', '--regid', '15900', '--clear-groups', '--no-new-privs'],
  ...[
    '--inh-caps=-all,+net_admin,+net_raw,+dac_read_search',
    '--ambient-caps=-all,+net_admin,+net_raw,+dac_read_search',
  ],
  '--bounding-set=-all,+net_admin,+net_raw,+dac_read_search',
]

it('needs no more than NET_ADMIN and NET_RAW as an ordinary user', async () => {
  const { code, fields } = await init([], ENVIRONMENT, AS_SIDECAR)
  expect({ code, message: fields.message }).toEqual({ code: 0, message: 'rules installed' })
  expect((await init(['--remove'], ENVIRONMENT, AS_SIDECAR)).code).toBe(0)
  expect(await rules()).toEqual([])
})

it('without capabilities it names what every backend said, and the capabilities', async () => {
  const { code, fields } = await init([], ENVIRONMENT, ['setpriv', '--bounding-set=-net_admin,-net_raw'])
  expect({ code, error: fields.code }).toEqual({ code: 1, error: 'no-backend' })
  for (const part of ['nft, IPv4: ', 'nft, IPv6: ', 'legacy, IPv4: ', 'legacy, IPv6: ']) {
    expect(fields.message).toContain(part)
  }
  expect(fields.fix).toContain('NET_ADMIN and NET_RAW')
})

it('without iptables it says so', async () => {
  const { code, fields } = await init([], ENVIRONMENT, ['env', 'PATH=/nowhere'])
  expect({ code, error: fields.code }).toEqual({ code: 1, error: 'no-backend' })
  expect(fields.message).toContain('nft, IPv4: iptables-nft-save is not installed')
  expect(fields.fix).toContain('iptables')
})

it('verify fails where no rules are', async () => {
  expect((await init(['--verify'])).fields.code).toBe('rules-differ')
})
