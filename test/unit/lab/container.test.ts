import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { containerEnvironment, expandVariables } from '../../../lab/environment.ts'
import { containerPrivileges, DEFAULT_CAPABILITIES } from '../../../lab/privileges.ts'
import { materializeVolume } from '../../../lab/volumes.ts'

const POD: V1Pod = {
  metadata: { namespace: 'n', name: 'p', uid: 'u-1', labels: { app: 'web' } },
  spec: { containers: [], nodeName: 'lab-node', serviceAccountName: 'default' },
  status: { podIP: '10.244.0.2', podIPs: [{ ip: '10.244.0.2' }, { ip: 'fd00::2' }], hostIPs: [{ ip: '172.30.0.10' }] },
}
const container = (fields: Partial<V1Container>): V1Container => ({ name: 'c', ...fields })

describe("a container's environment", () => {
  it('takes values in order, each seeing those before it, and fields of the Pod', () => {
    const field = (fieldPath: string) => ({ fieldRef: { fieldPath } })
    const env = [
      { name: 'A', value: '1' },
      { name: 'B', value: '$(A)2 $$(A) $(NONE)' },
      { name: 'IPS', valueFrom: field('status.podIPs') },
      { name: 'HOSTS', valueFrom: field('status.hostIPs') },
      { name: 'UID', valueFrom: field('metadata.uid') },
      { name: 'APP', valueFrom: field("metadata.labels['app']") },
    ]
    const { PATH: _, ...environment } = containerEnvironment(POD, container({ env }))
    expect(environment).toEqual({
      HOME: '/',
      HOSTNAME: 'p',
      A: '1',
      B: '12 $(A) $(NONE)',
      IPS: '10.244.0.2,fd00::2',
      HOSTS: '172.30.0.10',
      UID: 'u-1',
      APP: 'web',
    })
  })

  it('refuses what the lab cannot give', () => {
    const secret = [{ name: 'S', valueFrom: { secretKeyRef: { name: 'x', key: 'y' } } }]
    expect(() => containerEnvironment(POD, container({ env: secret }))).toThrow(
      'container c: env S: the lab knows fieldRef only',
    )
    const unknown = [{ name: 'S', valueFrom: { fieldRef: { fieldPath: 'spec.x' } } }]
    expect(() => containerEnvironment(POD, container({ env: unknown }))).toThrow('fieldRef spec.x is not known')
  })

  it('an own property named like an Object method is no variable', () => {
    expect(expandVariables('$(toString)', {})).toBe('$(toString)')
  })
})

describe("a container's powers", () => {
  it.each([
    ['nothing said', {}, [...DEFAULT_CAPABILITIES]],
    ['NET_RAW dropped', { drop: ['NET_RAW'] }, DEFAULT_CAPABILITIES.filter((name) => name !== 'net_raw')],
    ['ALL dropped, two added', { drop: ['ALL'], add: ['NET_ADMIN', 'CAP_NET_RAW'] }, ['net_admin', 'net_raw']],
    ['added and dropped', { drop: ['KILL'], add: ['KILL'] }, DEFAULT_CAPABILITIES.filter((name) => name !== 'kill')],
  ])('%s', (_, capabilities, expected) => {
    expect(containerPrivileges(POD, container({ securityContext: { capabilities } })).capabilities).toEqual(
      [...expected].sort(),
    )
  })

  it("the container's user outranks its Pod's, and only our containers keep powers as another user than root", () => {
    const pod: V1Pod = { ...POD, spec: { containers: [], securityContext: { runAsUser: 1000, runAsGroup: 2000 } } }
    const securityContext = { runAsUser: 7, allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }
    expect(containerPrivileges(pod, container({ securityContext }))).toEqual({
      uid: 7,
      gid: 2000,
      capabilities: [],
      ambient: false,
      noNewPrivileges: true,
    })
    expect(containerPrivileges(pod, { ...container({}), name: 'synguard-sidecar' }).ambient).toBe(true)
  })
})

describe('volumes', () => {
  let directory = ''
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'sgt-volumes-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  const asked: unknown[] = []
  const sources = {
    mintToken: async (pod: V1Pod, audience: string, seconds: number) => {
      asked.push([pod.metadata?.name, audience, seconds])
      return `token-${asked.length}`
    },
    configMap: (namespace: string, name: string) => (name === 'ca' ? { 'ca.crt': `CA of ${namespace}` } : undefined),
  }
  const read = (path: string) => readFileSync(join(directory, 'v', path), 'utf8')

  it('a projected volume holds tokens for their audiences and ConfigMaps, and is refreshed in place', async () => {
    const volume = {
      name: 'v',
      projected: {
        sources: [
          { serviceAccountToken: { audience: 'synguard', path: 'token', expirationSeconds: 600 } },
          { configMap: { name: 'ca', items: [{ key: 'ca.crt', path: 'tls/ca.crt' }] } },
          { configMap: { name: 'none', optional: true } },
          { downwardAPI: { items: [{ path: 'name', fieldRef: { fieldPath: 'metadata.name' } }] } },
        ],
      },
    }
    expect(await materializeVolume(volume, POD, directory, sources)).toBe(join(directory, 'v'))
    expect([read('token'), read('tls/ca.crt'), read('name')]).toEqual(['token-1', 'CA of n', 'p'])
    await materializeVolume(volume, POD, directory, sources)
    expect(read('token')).toBe('token-2')
    expect(asked).toEqual(Array.from({ length: 2 }, () => ['p', 'synguard', 600]))
    expect(statSync(join(directory, 'v', 'token')).mode & 0o777).toBe(0o644)
  })

  it('an emptyDir is writable for every user, a hostPath is the path itself', async () => {
    await materializeVolume({ name: 'v', emptyDir: {} }, POD, directory, sources)
    expect(statSync(join(directory, 'v')).mode & 0o777).toBe(0o777)
    expect(await materializeVolume({ name: 'h', hostPath: { path: '/x' } }, POD, directory, sources)).toBe('/x')
  })

  it.each([
    [
      { name: 'v', secret: { secretName: 's' } },
      'volume v: the lab offers emptyDir, projected, configMap and hostPath',
    ],
    [{ name: 'v', configMap: { name: 'none' } }, 'volume v: ConfigMap n/none does not exist in the lab'],
    [
      {
        name: 'v',
        projected: {
          sources: [{ downwardAPI: { items: [{ path: '../x', fieldRef: { fieldPath: 'metadata.name' } }] } }],
        },
      },
      'path "../x"',
    ],
  ])('%j is refused', async (volume, message) => {
    await expect(materializeVolume(volume, POD, directory, sources)).rejects.toThrow(message)
  })
})
