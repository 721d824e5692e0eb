/** One call of sidecar/rules in this process's network namespace: STEP INSTALLATION, both JSON; prints the result. */
import { join } from 'node:path'
import {
  findInstalled,
  type Installation,
  installRules,
  removeRules,
  rulesDiffer,
} from '../../../sidecar/rules/apply.ts'
import { BACKENDS, type Backend, type BackendName } from '../../../sidecar/rules/backend.ts'

const step: unknown = JSON.parse(process.argv[2] ?? 'null')
const given: { backend?: BackendName } & Partial<Omit<Installation, 'backend'>> = JSON.parse(process.argv[3] ?? '{}')
const [nft, legacy] = BACKENDS
if (nft === undefined || legacy === undefined) throw new Error('no backends')
const backend = given.backend === 'legacy' ? legacy : nft
/** Installs IPv4's rules, then fails, as where the kernel takes one table and refuses the next. */
const HALF_RESTORE = join(import.meta.dirname, 'half-restore')
const options = { queueTcp: 0, queueOther: 1, sidecarUid: 15900, ...given.options }
const installation: Installation = { backend, families: given.families ?? [4, 6], options }

async function install(candidates: readonly Backend[]) {
  const { passedOver, ...installed } = await installRules(options, installation.families, candidates)
  return { backend: installed.backend.name, families: installed.families, passedOver }
}

async function run(): Promise<unknown> {
  if (step === 'apply') return await install([backend])
  if (step === 'differences') return rulesDiffer(installation)
  if (step === 'remove') return removeRules()
  if (step === 'find') {
    const found = await findInstalled()
    return found === undefined ? undefined : { backend: found.backend.name, families: found.families }
  }
  const missing: Backend = { name: 'plain', restore: { 4: 'no', 6: 'no' }, save: { 4: 'no-such-save', 6: 'x' } }
  const half: Backend = {
    name: 'plain',
    restore: { 4: HALF_RESTORE, 6: 'x' },
    save: { 4: 'iptables-nft-save', 6: 'x' },
  }
  return await install([missing, half, backend])
}

console.log(JSON.stringify((await run()) ?? null))
