import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import type { DirectoryEntry, StreamMessage } from '../../../api/identity.ts'
import { createSigningKey, trustBundle } from '../../../certs/authority.ts'
import { ControlError } from '../../../sidecar/control/errors.ts'
import {
  parseDirectoryEntry,
  parseIdentityResponse,
  parseStreamMessage,
  parseTrustBundle,
} from '../../../sidecar/control/issuer-messages.ts'

const bundle = trustBundle([createSigningKey(), createSigningKey()])
const pod = {
  namespace: 'shop',
  name: 'db-0',
  uid: 'u',
  serviceAccount: 'db',
  labels: { app: 'db' },
  namespaceLabels: {},
  addresses: ['10.0.0.9', 'fd00::9'],
  ports: [{ name: 'sql', port: 5432, protocol: 'TCP' as const }],
}
const backend = { address: '10.0.0.9', port: 5432, guarded: false }
const entries: readonly DirectoryEntry[] = [
  { kind: 'pod', guarded: false, pod },
  { kind: 'pod', guarded: true, pod: { ...pod, degraded: ['keep-net-raw'] } },
  {
    kind: 'service',
    namespace: 'shop',
    name: 'db',
    ports: [{ protocol: 'TCP', port: 1, backends: [backend, { ...backend, guarded: true, pod }] }],
  },
  {
    kind: 'node',
    name: 'n1',
    ports: [{ protocol: 'TCP', port: 30080, serviceAddress: '10.96.0.9', servicePort: 1 }],
  },
  { kind: 'unmatched', reason: 'two Pods' },
  { kind: 'external' },
]
const messages: readonly StreamMessage[] = [
  {
    type: 'hello',
    bundle,
    voids: [
      { uid: 'u', iatBefore: 7 },
      { uid: 'v', iatBefore: 8, labels: { a: '' }, namespaceLabels: {} },
    ],
    mode: 'audit',
  },
  { type: 'ping' },
  { type: 'renew' },
  { type: 'bundle', bundle },
  { type: 'void', void: { uid: 'u', iatBefore: 7 } },
  ...entries.map((entry) => ({ type: 'directory', address: 'fd00::9', entry }) as const),
  { type: 'mode', mode: 'off' },
]

/** Every value that differs from `value` by one member taken away or spoilt, at any depth. */
function spoil(value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, member]) => {
    const withMember = (changed: unknown) =>
      Array.isArray(value) ? value.toSpliced(Number(key), 1, changed) : { ...value, [key]: changed }
    const wrongValues = [null, { not: 5 }, [{ never: 1 }]]
    return [...wrongValues, ...spoil(member)].map(withMember)
  })
}

describe("the issuer's messages", () => {
  it('come out as they were sent, members of a newer issuer left out', () => {
    for (const message of messages) {
      expect(parseStreamMessage(JSON.stringify(message))).toEqual(message)
      expect(parseStreamMessage(JSON.stringify({ ...message, newer: { x: 1 } }))).toEqual(message)
    }
    for (const entry of entries) expect(parseDirectoryEntry(entry)).toEqual(entry)
  })

  it('of a type not known here are left out', () => {
    expect(parseStreamMessage('{"type":"news","x":1}')).toBeUndefined()
  })

  it('of a known type are refused with any one member spoilt', () => {
    for (const message of messages) {
      for (const spoilt of spoil(message))
        expect(() => parseStreamMessage(JSON.stringify(spoilt))).toThrow(ControlError)
    }
  })

  it.each([
    ['an address that is not canonical', { type: 'directory', address: 'FD00::9', entry: { kind: 'external' } }],
    ['a kind of entry not known here', { type: 'directory', address: '10.0.0.1', entry: { kind: 'anything' } }],
    [
      'a port out of range',
      {
        type: 'directory',
        address: '10.0.0.1',
        entry: { ...entries[0], pod: { ...pod, ports: [{ name: 'a', port: 65_536, protocol: 'TCP' }] } },
      },
    ],
    ['a fraction of a second', { type: 'void', void: { uid: 'u', iatBefore: 7.5 } }],
    ['an empty bundle', { type: 'bundle', bundle: { keys: [] } }],
    ['a mode not known here', { type: 'mode', mode: 'allow' }],
    ['no type', {}],
  ])('are refused with %s', (_, message) => {
    expect(() => parseStreamMessage(JSON.stringify(message))).toThrow(ControlError)
  })

  it('name the member that is wrong', () => {
    const ports = [{ protocol: 'TCP', port: 1, backends: [{ address: '10.0.0.9', port: 0, guarded: false }] }]
    expect(() => parseDirectoryEntry({ kind: 'service', namespace: 'shop', name: 'db', ports })).toThrow(
      'entry.ports[0].backends[0].port is not a port',
    )
  })

  it('never fail otherwise than with a ControlError, whatever the line is', () => {
    const line = fc.oneof(
      fc.string(),
      fc.json(),
      fc.constantFrom(...messages).map((message) => JSON.stringify(message).slice(0, -2)),
    )
    fc.assert(
      fc.property(line, (text) => {
        try {
          parseStreamMessage(text)
        } catch (error) {
          expect(error).toBeInstanceOf(ControlError)
        }
      }),
    )
  })
})

describe('a trust bundle', () => {
  it('holds keys whose kid is their thumbprint', () => {
    const [first, second] = bundle.keys
    expect(parseTrustBundle(bundle)).toEqual(bundle)
    expect(() => parseTrustBundle({ keys: [{ ...first, kid: second?.kid }] })).toThrow(ControlError)
    expect(() => parseTrustBundle({ keys: Array.from({ length: 33 }, () => first) })).toThrow(ControlError)
  })

  it('comes with the WIT', () => {
    expect(parseIdentityResponse({ wit: 'a.b.c', bundle })).toEqual({ wit: 'a.b.c', bundle })
    for (const spoilt of spoil({ wit: 'a.b.c', bundle }))
      expect(() => parseIdentityResponse(spoilt)).toThrow(ControlError)
  })
})
