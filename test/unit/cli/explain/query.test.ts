import { describe, expect, it } from '@jest/globals'
import { parseQuery } from '../../../../cli/explain/query.ts'

const GOOD = { from: 'shop/web', to: 'shop/svc/db', port: '80' }

describe('a question about a connection', () => {
  it('names Pods, Services and addresses, in canonical text', () => {
    expect(parseQuery(GOOD)).toEqual({
      from: { kind: 'any', namespace: 'shop', name: 'web' },
      to: { kind: 'service', namespace: 'shop', name: 'db' },
      port: 80,
      protocol: 'TCP',
    })
    expect(parseQuery({ from: 'shop/pod/web', to: 'FD00:0::1', port: 'dns', protocol: 'udp' })).toEqual({
      from: { kind: 'pod', namespace: 'shop', name: 'web' },
      to: { kind: 'address', address: 'fd00::1' },
      port: 'dns',
      protocol: 'UDP',
    })
  })

  it.each([
    [{ from: undefined }, '--from is missing'],
    [{ to: '' }, '--to is missing'],
    [{ port: undefined }, '--port is missing'],
    [{ from: 'web' }, '--from "web" is not NAMESPACE/NAME'],
    [{ to: 'shop/job/web' }, '--to "shop/job/web" is not'],
    [{ to: 'shop/svc/../web' }, '--to "shop/svc/../web" is not'],
    [{ to: 'shop/a?b' }, '--to "shop/a?b" is not'],
    [{ from: 'shop/svc/web' }, '--from is a Service'],
    [{ port: '0' }, '--port 0 must be from 1 to 65535'],
    [{ port: '65536' }, '--port 65536 must be'],
    [{ port: 'HTTP' }, '--port "HTTP" must be lower case'],
    [{ protocol: 'icmp' }, '--protocol "icmp" is none of TCP, UDP, SCTP'],
  ])('%j is told by its option', (change, message) => {
    expect(() => parseQuery({ ...GOOD, ...change })).toThrow(message)
  })
})
