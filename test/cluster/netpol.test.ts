/**
 * Kubernetes' own tests of NetworkPolicy, on the namespaces that they make, guarded. Without those of SCTP, which
 * not every kernel has. PROXY_MODE=nftables runs them with that mode of kube-proxy.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { install, OWNS_NODE, uninstall } from './installation.ts'
import { binFolder } from './node.ts'

const OVERLAY = resolve(import.meta.dirname, '..', '..', 'manifests', 'overlays', 'e2e')
const LIMIT_MS = 75 * 60_000
/** One spec or a few of them, while something is looked for. */
const FOCUS = process.env.SYNGUARD_NETPOL_FOCUS ?? 'Netpol'

interface Report {
  readonly SpecReports: readonly {
    readonly LeafNodeText: string
    readonly ContainerHierarchyTexts: readonly string[] | null
    readonly State: string
    readonly RunTime: number
    readonly Failure?: { readonly Message: string }
  }[]
}

;(OWNS_NODE ? describe : describe.skip)("Kubernetes' NetworkPolicy tests", () => {
  const folder = mkdtempSync(join(tmpdir(), 'synguard-netpol-'))
  beforeAll(() => install(OVERLAY))
  afterAll(async () => {
    await uninstall(OVERLAY)
    rmSync(folder, { recursive: true, force: true })
  })

  it(
    'pass, all but those of SCTP',
    async () => {
      const flags = [
        '--provider=skeleton',
        `--kubeconfig=${process.env.KUBECONFIG}`,
        `--ginkgo.focus=${FOCUS}`,
        '--ginkgo.skip=SCTP',
        '--allowed-not-ready-nodes=0',
        '--ginkgo.no-color',
        `--ginkgo.json-report=${join(folder, 'report.json')}`,
      ]
      await new Promise<void>((done) => {
        const options = { timeout: LIMIT_MS, maxBuffer: 1 << 30, cwd: folder }
        execFile(join(binFolder(), 'e2e.test'), flags, options, () => done())
      })
      const [report] = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as [Report]
      const specs = report.SpecReports.filter(
        ({ State, ContainerHierarchyTexts }) => State !== 'skipped' && ContainerHierarchyTexts !== null,
      )
      const lines = specs.map(
        ({ State, LeafNodeText, RunTime, Failure }) =>
          `${State} ${(RunTime / 1e9).toFixed(0)} s  ${LeafNodeText}  ${Failure?.Message.split('\n')[0] ?? ''}`,
      )
      process.stderr.write(`${lines.join('\n')}\n`)
      expect(specs.length).toBeGreaterThan(0)
      expect(lines.filter((line) => !line.startsWith('passed'))).toEqual([])
    },
    LIMIT_MS + 60_000,
  )
})
