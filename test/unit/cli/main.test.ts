import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { parseAllDocuments, stringify } from 'yaml'

const ROOT = resolve(import.meta.dirname, '../../..')
const EXAMPLE = join(ROOT, 'examples', 'three-tier')

/** Nobody, who can still read this checkout where it is root's alone. */
const AS_NOBODY = [
  ...['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
  ...['--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search'],
]

function run(args: readonly string[], options: { input?: string; runner?: readonly string[] } = {}) {
  const { runner = [], ...rest } = options
  const [file = '', ...argv] = [...runner, process.execPath, '--no-warnings', join(ROOT, 'cli', 'main.ts'), ...args]
  const { status, stdout, stderr } = spawnSync(file, argv, { encoding: 'utf8', cwd: ROOT, ...rest })
  return { status, stdout, stderr }
}

describe('the command line', () => {
  it('--help and --version answer on standard output', () => {
    expect(run(['--help'])).toEqual({ status: 0, stdout: expect.stringContaining('try DIR'), stderr: '' })
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
    expect(run(['--version'])).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' })
    expect(run(['try', '--help']).stdout).toContain('--expect FILE')
  })

  it.each([
    [[], 'a command is missing'],
    [['tri'], 'there is no command "tri"'],
    [['constructor'], 'there is no command "constructor"'],
    [['explain'], 'DIR is missing'],
    [['explain', 'a', 'b'], 'unexpected argument "b"'],
    [['try', '--jason', 'x'], "Unknown option '--jason'"],
    [['try', EXAMPLE, '--mtu', '100'], '--mtu 100 must be a whole number from 1280 to 65535'],
    [['inject'], '-f FILE is missing'],
    [['explain', '/nonexistent'], '/nonexistent cannot be read'],
    [['explain', '--from', 'a/b', '--to', 'a/c'], '--port is missing'],
    [['explain', '--from', 'a/b', 'shop'], '--from asks a cluster, and "shop" is a folder: give one of them'],
    [
      ['explain', '--from', 'a/b', '--to', 'a/c', '--port', '1', '--policies', '/nonexistent'],
      '/nonexistent cannot be',
    ],
    [['explain', '--from', 'a/b', '--to', 'a/c', '--port', '1', '--kubeconfig', '/nonexistent'], '(ENOENT)'],
    [['try', EXAMPLE, '--expect', '/nonexistent'], '/nonexistent cannot be read'],
    [['check', '--kubeconfig', '/nonexistent'], 'The kubeconfig /nonexistent cannot be read (ENOENT)'],
    [['check', 'shop'], 'unexpected argument "shop"'],
    [['revoke'], 'NAMESPACE/POD is missing'],
    [['revoke', 'web-1'], '"web-1" is not NAMESPACE/POD'],
    [['revoke', '--list', 'shop/web-1'], '--list goes with --json alone'],
    [['revoke', '--json', 'shop/web-1'], '--json goes with --list'],
    [['revoke', '--list', '--kubeconfig', '/nonexistent'], '(ENOENT)'],
    [['audit'], 'NAMESPACE is missing'],
    [['audit', 'shop/web'], '"shop/web" is no namespace'],
    [['audit', 'shop', '--kubeconfig', '/nonexistent'], '(ENOENT)'],
    [['flows', 'web-1'], '"web-1" is not NAMESPACE/POD'],
    [['flows', 'shop/web-1', '--kubeconfig', '/nonexistent'], '(ENOENT)'],
    [['certs'], 'certs takes status, rotate, force or abort, not ""'],
    [['certs', 'rotate'], 'identity or serving is missing'],
    [['certs', 'rotate', 'keys'], '"keys" is neither identity nor serving'],
    [['certs', 'abort', 'identity', '--force'], "Unknown option '--force'"],
    [['certs', 'rotate', 'identity', '--force', '--compromised'], 'in an emergency sidecars are not waited for anyway'],
    [['certs', 'force', 'serving', '--timeout', '0'], '--timeout 0 must be a whole number of seconds from 1 on'],
    [['certs', 'status', '--kubeconfig', '/nonexistent'], 'The kubeconfig /nonexistent cannot be read (ENOENT)'],
  ])('%j is one line on standard error and status 2', (args, message) => {
    const { status, stdout, stderr } = run(args)
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^synguard: [^\n]+\n$/)
    expect(stderr).toContain(message)
  })

  it('try without root is one line and status 2', () => {
    const { status, stdout, stderr } = run(['try', EXAMPLE], { runner: AS_NOBODY })
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^synguard: the lab needs root[^\n]+\n$/)
  })
})

describe('synguard explain', () => {
  it('gives for the three-tier example what its expect.json says', () => {
    const { status, stdout } = run(['explain', EXAMPLE, '--json'])
    const { results } = JSON.parse(stdout) as { results: Record<string, unknown>[] }
    expect(status).toBe(0)
    const facts = results.map(({ from, to, port, protocol, reachable }) => ({ from, to, port, protocol, reachable }))
    expect(facts).toEqual(JSON.parse(readFileSync(join(EXAMPLE, 'expect.json'), 'utf8')))
    expect(results[1]).toEqual({
      from: 'external/client',
      to: 'backend/store-0',
      port: 6379,
      protocol: 'TCP',
      reachable: false,
      decidedBy: 'ingress backend/from-frontend',
      reason: expect.stringContaining('isolated by backend/from-frontend'),
    })
  })
})

describe('with files of its own', () => {
  let directory = ''
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'sgt-cli-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  it('explain names file, document and field of a mistake', () => {
    const path = join(directory, 'bad.yaml')
    writeFileSync(
      path,
      '---\nkind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {containers: [{name: c}]}\n---\nkind: Secret\n',
    )
    const { status, stderr } = run(['explain', directory])
    expect(status).toBe(2)
    expect(stderr).toContain(`${path} document 2: kind Secret is not one that the lab runs`)
  })

  it('explain says which policies nobody enforces', () => {
    writeFileSync(
      join(directory, 'a.yaml'),
      'kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: q}\nspec: {containers: [{name: c}]}\n---\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: p, namespace: q}\nspec: {podSelector: {}}\n',
    )
    const { status, stderr } = run(['explain', directory])
    expect([status, stderr]).toEqual([0, 'NetworkPolicy q/p: no Pod of q is guarded, so nobody enforces it\n'])
  })
})

describe('synguard inject', () => {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'a' },
    spec: { containers: [{ name: 'c', image: 'x' }] },
  }

  it('shows a Pod with our containers first, leaves other documents alone, and changes nothing the second time', () => {
    const service = { apiVersion: 'v1', kind: 'Service', metadata: { name: 's' }, spec: {} }
    const first = run(['inject', '-f', '-'], { input: `${stringify(pod)}---\n${stringify(service)}` })
    expect(first.status).toBe(0)
    const [injected, untouched] = parseAllDocuments(first.stdout).map((document) => document.toJS() as unknown)
    const { spec } = injected as { spec: { initContainers: { name: string }[] } }
    expect(spec.initContainers.map(({ name }) => name)).toEqual(['synguard-init', 'synguard-sidecar'])
    expect(untouched).toEqual(service)
    expect(run(['inject', '-f', '-'], { input: first.stdout }).stdout).toBe(first.stdout)
  })

  it('a refused Pod is told on standard error, with status 1', () => {
    const privileged = { ...pod, spec: { ...pod.spec, hostPID: true } }
    const { status, stdout, stderr } = run(['inject', '-f', '-'], { input: stringify(privileged) })
    expect([status, stdout]).toEqual([1, ''])
    expect(stderr).toContain('refused: ')
  })

  it('a Namespace of the file that is not labelled leaves its Pods alone', () => {
    const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'q' } }
    const inIt = { ...pod, metadata: { name: 'a', namespace: 'q' } }
    const { status, stdout } = run(['inject', '-f', '-'], { input: `${stringify(namespace)}---\n${stringify(inIt)}` })
    expect([status, parseAllDocuments(stdout)[1]?.toJS()]).toEqual([0, inIt])
  })
})
