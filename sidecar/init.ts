/**
 * The init step of a guarded Pod: installs the rules in the Pod's network namespace, reads them back and ends.
 * From then on nothing passes without a decision of the sidecar.
 */
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { ENVIRONMENT } from '../api/environment.ts'
import { SynguardError } from '../api/errors.ts'
import { QUEUE_OTHER, QUEUE_TCP, SIDECAR_UID } from '../api/names.ts'
import { findExpected, type Installation, installRules, removeRules, verifyRules } from './rules/apply.ts'
import { BACKENDS } from './rules/backend.ts'
import { RulesError } from './rules/errors.ts'
import { nodeNamespaceSign, parseAddresses, readNamespaceFacts, readRequiredFamilies } from './rules/pod-namespace.ts'

const HELP = `Installs Synguard's iptables rules in this Pod's network namespace.

  init.ts            install the rules, read them back, say what was done
  init.ts --verify   compare the installed rules with what belongs there; 1 where they differ
  init.ts --remove   remove our rules and chains, and nothing else
  init.ts --help     this text

Environment: ${ENVIRONMENT.podIps} and ${ENVIRONMENT.hostIps} (addresses, comma separated; required to install and
remove), ${ENVIRONMENT.refusal} (reset or drop; default reset), ${ENVIRONMENT.logLevel} (default info).
Prints one JSON line. Ends with 0, or with 1 and a line with code, message and fix.`

type Environment = Readonly<Record<string, string | undefined>>

function requireAddresses(environment: Environment, name: string, field: string): readonly string[] {
  const addresses = parseAddresses(environment[name] ?? '')
  if (addresses === undefined || addresses.length === 0) {
    const found = addresses === undefined ? 'holds something that is no IP address' : 'is not set'
    throw new RulesError('invalid-environment', `${name} ${found}`, `Set it from the downward API: ${field}.`)
  }
  return addresses
}

function parseOptions(environment: Environment): Installation['options'] {
  const refusal = environment[ENVIRONMENT.refusal] || 'reset'
  if (refusal !== 'reset' && refusal !== 'drop') {
    throw new RulesError('invalid-environment', `${ENVIRONMENT.refusal} is neither reset nor drop`, 'Set one of them.')
  }
  return { queueTcp: QUEUE_TCP, queueOther: QUEUE_OTHER, sidecarUid: SIDECAR_UID, refusal }
}

/** Throws RulesError `node-network-namespace` where the rules would cut off the node. */
function refuseNodeNamespace(environment: Environment): void {
  const podIps = requireAddresses(environment, ENVIRONMENT.podIps, 'status.podIPs')
  const hostIps = requireAddresses(environment, ENVIRONMENT.hostIps, 'status.hostIPs')
  const sign = nodeNamespaceSign(readNamespaceFacts(podIps, hostIps))
  if (sign !== undefined) {
    throw new RulesError('node-network-namespace', sign, 'Run it in a Pod with hostNetwork false.')
  }
}

const describe = ({ backend, families }: Pick<Installation, 'backend' | 'families'>) => ({
  backend: backend.name,
  families: families.map((family) => `IPv${family}`),
})

async function install(environment: Environment) {
  const options = parseOptions(environment)
  refuseNodeNamespace(environment)
  const installation = await installRules(options, readRequiredFamilies())
  const { backend, passedOver } = installation
  // A restarted Pod can find rules of the other backend, which would queue every packet twice. `plain` is a name for
  // either of them, so it is left alone.
  const others = BACKENDS.filter(({ name }) => name !== backend.name && name !== 'plain')
  const [replaced] = await Promise.all([backend.name === 'plain' ? [] : removeRules(others), verifyRules(installation)])
  return { message: 'rules installed', ...describe(installation), refusal: options.refusal, passedOver, replaced }
}

async function verify(environment: Environment) {
  const found = await findExpected()
  if (found === undefined) {
    throw new RulesError('rules-differ', 'no rules of Synguard are here', 'Run the init step.')
  }
  const installation = { ...found, options: parseOptions(environment) }
  await verifyRules(installation)
  return { message: 'rules verified', ...describe(installation), refusal: installation.options.refusal }
}

async function remove(environment: Environment) {
  refuseNodeNamespace(environment)
  return { message: 'rules removed', removed: await removeRules() }
}

/** Runs the step that the parameters name; resolves to the process's exit code. */
async function main(parameters: readonly string[], environment: Environment): Promise<number> {
  const level = environment[ENVIRONMENT.logLevel] || 'info'
  const log = pino({
    // A level that only silences must not hide why a Pod does not start.
    level: ['trace', 'debug', 'info'].includes(level) ? level : 'info',
    base: { component: 'init' },
    messageKey: 'message',
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  })
  try {
    const { values } = parseArgs({
      args: [...parameters],
      options: { help: { type: 'boolean' }, verify: { type: 'boolean' }, remove: { type: 'boolean' } },
    })
    if (values.help === true) {
      process.stdout.write(`${HELP}\n`)
      return 0
    }
    const step = values.remove === true ? remove : values.verify === true ? verify : install
    log.info(await step(environment))
    return 0
  } catch (error) {
    const failure = error instanceof Error ? error : new Error(String(error))
    const code = error instanceof SynguardError ? error.code : 'unexpected'
    const fix = error instanceof RulesError ? error.fix : 'See --help.'
    log.error({ code, fix, message: failure.message })
    return 1
  }
}

process.exitCode = await main(process.argv.slice(2), process.env)
