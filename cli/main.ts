#!/usr/bin/env node
/** `synguard`, for people. Standard output holds the answer, standard error everything else. */
import { readFileSync } from 'node:fs'
import { SynguardError } from '../api/errors.ts'
import { AUDIT_HELP, runAudit } from './audit.ts'
import { CERTS_HELP, runCerts } from './certs.ts'
import { CHECK_HELP, runCheck } from './check.ts'
import { CliError, exitCodeOf } from './errors.ts'
import { EXPLAIN_HELP, runExplain } from './explain.ts'
import { FLOWS_HELP, runFlows } from './flows.ts'
import { INJECT_HELP, runInject } from './inject.ts'
import { REVOKE_HELP, runRevoke } from './revoke.ts'
import { runTry, TRY_HELP } from './try.ts'

const COMMANDS: Readonly<Record<string, { run(args: readonly string[]): Promise<number>; help: string }>> = {
  try: { run: runTry, help: TRY_HELP },
  explain: { run: runExplain, help: EXPLAIN_HELP },
  inject: { run: runInject, help: INJECT_HELP },
  check: { run: runCheck, help: CHECK_HELP },
  audit: { run: runAudit, help: AUDIT_HELP },
  flows: { run: runFlows, help: FLOWS_HELP },
  revoke: { run: runRevoke, help: REVOKE_HELP },
  certs: { run: runCerts, help: CERTS_HELP },
}

const HELP = `synguard COMMAND

  try DIR       run manifests on this machine and print who reaches whom
  explain DIR   the same from the policy engine alone
  explain       whether a connection comes to be on a cluster, and why: --from A --to B --port N
  inject -f F   what a file's Pods would become
  check         whether a cluster is ready for Synguard, and Synguard well in it
  audit NS      what a namespace's Pods would refuse if they enforced
  flows NS/POD  a Pod's connections with their peers and bytes, and what it refused last
  revoke        declares a Pod's identity void, takes that back, lists what is revoked
  certs         rotates its keys, and tells how far that is

  --help        this text, or a command's: synguard try --help
  --version     the version`

function readVersion(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

async function run([name, ...args]: readonly string[]): Promise<number> {
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${readVersion()}\n`)
    return 0
  }
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(`${HELP}\n`)
    return 0
  }
  if (name === undefined) throw new CliError('cli-usage', 'a command is missing')
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (command === undefined) throw new CliError('cli-usage', `there is no command "${name}"`)
  if (args.includes('--help') || args.includes('-h')) {
    process.stdout.write(`${command.help}\n`)
    return 0
  }
  return await command.run(args)
}

function report(error: unknown): void {
  if (error instanceof SynguardError) {
    const hint = error.code === 'cli-usage' ? '; see synguard --help' : ''
    process.stderr.write(`synguard: ${error.message}${hint} [${error.code}]\n`)
  } else process.stderr.write(`synguard: ${error instanceof Error ? (error.stack ?? error.message) : error}\n`)
}

try {
  process.exitCode = await run(process.argv.slice(2))
} catch (error) {
  report(error)
  process.exitCode = exitCodeOf(error)
}
