/** `synguard check` on a cluster that has kubelets: what only Pods can find out, before an installation and after it. */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { afterAll, describe, expect, it } from '@jest/globals'
import { parse } from 'yaml'
import type { Finding } from '../../cli/check/finding.ts'
import { awaitGuarded, cleanUp, install, KUSTOMIZATION } from './installation.ts'
import { apply, kubectl, until } from './kubectl.ts'
import { deployment, GUARDED, httpServer, namespace, podSpec } from './objects.ts'
import { awaitRollouts } from './pods.ts'

const MAIN = resolve(import.meta.dirname, '..', '..', 'cli', 'main.ts')
const SHOP = 'checked'

interface Checked {
  readonly status: number | null
  readonly findings: readonly Finding[]
}

function check(...parameters: readonly string[]): Promise<Checked> {
  return new Promise((done, fail) => {
    const all = ['--no-warnings', MAIN, 'check', '--json', ...parameters]
    const child = execFile(process.execPath, all, { timeout: 170_000 }, (_, stdout, stderr) => {
      if (stdout === '') return fail(new Error(stderr))
      const { findings } = JSON.parse(stdout) as { findings: Finding[] }
      done({ status: child.exitCode, findings })
    })
  })
}

const told = ({ findings }: Checked, name: string) =>
  findings.filter((finding) => finding.check === name).map(({ status, message }) => `${status} ${message}`)
const faults = ({ findings }: Checked) => findings.filter(({ status }) => status === 'fix')

/** What the overlay names, which is known before it is installed. */
async function sidecarImage(): Promise<string> {
  const objects = (await kubectl('kustomize', KUSTOMIZATION)).split(/^---$/m).map((text) => parse(text))
  const settings = objects.find(({ kind, data }) => kind === 'ConfigMap' && data?.['settings.yaml'] !== undefined)
  return (parse(settings.data['settings.yaml']) as { injection: { image: string } }).injection.image
}

describe('synguard check', () => {
  afterAll(() => cleanUp([SHOP]))

  it('finds out before the installation what kernels and network do', async () => {
    const checked = await check('--image', await sidecarImage())
    expect([checked.status, faults(checked)]).toEqual([3, []])
    expect(told(checked, 'kernel')).toEqual([expect.stringMatching(/^ok kernel .*: takes the rules, by iptables-nft/)])
    expect(told(checked, 'source-translation')).toEqual([expect.stringMatching(/^ok Pods are seen by their own/)])
  })

  it('finds an installation well, down to a guarded Pod and the certificates of both replicas', async () => {
    await install()
    await apply(namespace(SHOP, GUARDED))
    await awaitGuarded(SHOP)
    await apply(deployment(SHOP, 'web', podSpec(httpServer())))
    await awaitRollouts(SHOP, 'web')
    const checked = await check()
    expect(faults(checked)).toEqual([])
    expect(checked.status).toBe(0)
    expect(told(checked, 'serving-certificate')[0]).toMatch(/^ok 2 replicas with a certificate by caBundle/)
    expect(told(checked, 'guarded-pod')[0]).toMatch(/^ok a guarded Pod started, ran and ended/)
    expect(told(checked, 'sidecars')[0]).toMatch(new RegExp(`^ok ${SHOP}: 1 of 1 Pod guarded: 1 at `))
  })

  it('leaves no namespace of its own', async () => {
    await until('the namespaces to go', async () => {
      const names = await kubectl('get', 'namespaces', '-o', 'name')
      return !names.includes('synguard-check-')
    })
  })

  it('finds what is wrong: Pods older than the label, and no replica', async () => {
    await kubectl('label', 'namespace', SHOP, 'synguard.io/inject-')
    await kubectl('-n', SHOP, 'rollout', 'restart', 'deployment/web')
    await awaitRollouts(SHOP, 'web')
    await kubectl('label', 'namespace', SHOP, 'synguard.io/inject=enabled')
    await awaitGuarded(SHOP)
    await until('the old Pod to go', async () => {
      const names = await kubectl('-n', SHOP, 'get', 'pods', '-o', 'name')
      return names.trim().split('\n').length === 1
    })
    const older = faults(await check('--no-pods'))
    expect(older).toEqual([
      {
        check: 'unguarded-pods',
        status: 'fix',
        message: `${SHOP}: 1 Pod of deployment/web without sidecar, older than the label`,
        fix: `kubectl -n ${SHOP} rollout restart deployment/web`,
        namespace: SHOP,
      },
    ])
    await kubectl('-n', 'synguard', 'scale', 'deployment/synguard-webhook', '--replicas=0')
    await until('the replicas to go', async () => {
      const names = await kubectl('-n', 'synguard', 'get', 'pods', '-o', 'name')
      return names.trim() === ''
    })
    const checked = await check('--no-pods')
    expect(faults(checked).map(({ check: name }) => name)).toEqual(
      expect.arrayContaining(['replicas', 'service', 'webhook-reached', 'unguarded-pods']),
    )
  })
})
