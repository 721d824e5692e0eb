/** One call of sidecar/rules in this process's network namespace: STEP INSTALLATION, both JSON; prints the result. */
import { applyRules, findInstalled, type Installation, removeRules, rulesDiffer } from '../../../sidecar/rules/apply.ts'
import { BACKENDS, type BackendName, chooseBackend } from '../../../sidecar/rules/backend.ts'

const step: unknown = JSON.parse(process.argv[2] ?? 'null')
const given: { backend?: BackendName } & Partial<Omit<Installation, 'backend'>> = JSON.parse(process.argv[3] ?? '{}')
const [nft, legacy] = BACKENDS
if (nft === undefined || legacy === undefined) throw new Error('no backends')
const backend = given.backend === 'legacy' ? legacy : nft
const options = { queueTcp: 0, queueOther: 1, sidecarUid: 15900, ...given.options }
const installation: Installation = { backend, families: given.families ?? [4, 6], options }

async function run(): Promise<unknown> {
  if (step === 'apply') return applyRules(installation)
  if (step === 'differences') return rulesDiffer(installation)
  if (step === 'remove') return removeRules()
  if (step === 'find') {
    const found = await findInstalled()
    return found === undefined ? undefined : { backend: found.backend.name, families: found.families }
  }
  const missing = { name: 'plain', restore: { 4: 'no-such-restore', 6: 'x' }, save: { 4: 'x', 6: 'x' } } as const
  const chosen = await chooseBackend(options, [4, 6], [missing, backend])
  return { backend: chosen.backend.name, families: chosen.families, passedOver: chosen.passedOver }
}

console.log(JSON.stringify((await run()) ?? null))
