/** The webhook's process: reads its settings, starts a replica, ends it on SIGTERM. */
import { readFileSync } from 'node:fs'
import { WebhookError } from './errors.ts'
import { type Installation, parseInstallation } from './installation.ts'
import { createLog, describeError } from './log.ts'
import { type Replica, startReplica } from './replica.ts'

const DEFAULT_SETTINGS_PATH = '/etc/synguard/settings.yaml'

const HELP = `Synguard's webhook: puts the sidecar into the Pods of labelled namespaces, gives them their identities, and keeps what
sidecars need in each of those namespaces.

It takes no arguments, but reads from its environment:
  SYNGUARD_SETTINGS     the settings file (${DEFAULT_SETTINGS_PATH})
  SYNGUARD_NAMESPACE    the namespace that it runs in
  SYNGUARD_POD_NAME     the name of its Pod, for the log
  SYNGUARD_LOG_LEVEL    trace, debug, info, warn or error
  KUBECONFIG            outside of a cluster: how to reach the API server
`

/** After this long whatever still keeps the process is not waited for. */
const END_MS = 5_000

function readInstallation(): Installation {
  const path = process.env.SYNGUARD_SETTINGS ?? DEFAULT_SETTINGS_PATH
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code = 'unreadable' } = error as NodeJS.ErrnoException
    throw new WebhookError('setting-invalid', `The settings file ${path} cannot be read (${code}).`)
  }
  return parseInstallation(text, process.env)
}

async function main(): Promise<void> {
  if (process.argv.includes('--help')) {
    process.stdout.write(HELP)
    return
  }
  try {
    const installation = readInstallation()
    const { logLevel: level, replica } = installation
    endOnSignals(await startReplica(installation, createLog({ level, replica })), installation.drainMs)
  } catch (error) {
    createLog({ level: 'info', replica: '' }).fatal(describeError(error), 'cannot start')
    process.exit(1)
  }
}

function endOnSignals(replica: Replica, drainMs: number): void {
  let ending = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (ending) return
      ending = true
      setTimeout(() => process.exit(1), drainMs + END_MS).unref()
      void replica.stop().then(() => process.exit(0))
    })
  }
}

await main()
