import { describe, expect, it } from '@jest/globals'
import { hasIpv6, nodeNamespaceSign, parseAddresses } from '../../../sidecar/rules/pod-namespace.ts'

const POD = {
  podIps: ['10.244.0.5', 'fd00::5'],
  hostIps: ['192.0.2.10', '2001:db8::10'],
  ownAddresses: ['127.0.0.1', '10.244.0.5', 'fd00::5', 'fe80::1%eth0'],
  namespace: 'net:[4026532345]',
}

describe('nodeNamespaceSign', () => {
  it.each([
    ['a Pod of its own', POD, undefined],
    ['hostNetwork', { ...POD, podIps: ['192.0.2.10'] }, "the Pod's address 192.0.2.10 is its node's"],
    [
      "the node's address on an interface, in another spelling",
      { ...POD, ownAddresses: ['2001:db8:0::0010'] },
      "an interface here has the node's address 2001:db8:0::0010",
    ],
    [
      "the node's address as a mapped one",
      { ...POD, hostIps: ['::ffff:10.244.0.5'] },
      "the Pod's address 10.244.0.5 is its node's",
    ],
    ['the first namespace', { ...POD, namespace: 'net:[4026531833]' }, "this is the machine's first network namespace"],
    ['a namespace that cannot be read', { ...POD, namespace: undefined }, undefined],
  ] as const)('%s', (_case, facts, sign) => {
    expect(nodeNamespaceSign(facts)).toBe(sign)
  })
})

describe('hasIpv6', () => {
  const LOOPBACK = '00000000000000000000000000000001 01 80 10 80       lo\n'
  const LINK_LOCAL = 'fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n'
  it.each([
    ['no IPv6 in the kernel', '', new Map(), false],
    [
      'loopback only, the rest disabled',
      LOOPBACK,
      new Map([
        ['all', '0'],
        ['lo', '0'],
        ['eth0', '1\n'],
      ]),
      false,
    ],
    ['a link-local address', LOOPBACK + LINK_LOCAL, new Map(), true],
    ['an interface that may get an address', LOOPBACK, new Map([['eth0', '0\n']]), true],
  ] as const)('%s', (_case, addresses, disabled, expected) => {
    expect(hasIpv6(addresses, disabled)).toBe(expected)
  })
})

describe('parseAddresses', () => {
  it.each([
    ['10.0.0.1, fd00::1 ,', ['10.0.0.1', 'fd00::1']],
    ['', []],
    ['10.0.0.1,10.0.0.256', undefined],
    ['10.0.0.0/8', undefined],
  ])('%j', (text, addresses) => {
    expect(parseAddresses(text)).toEqual(addresses)
  })
})
