/** The sidecar's process: reads its settings, starts the control plane and the packet path, ends at once on SIGTERM. */
import { SynguardError } from '../api/errors.ts'
import { createLog } from './control/log.ts'
import { openSources } from './control/policies/open.ts'
import { parseSettings } from './control/settings.ts'
import { startSidecar } from './control/sidecar.ts'
import { startDroppingPages } from './control/unused-pages.ts'

const HELP = `Synguard's sidecar: decides the connections of the Pod whose network namespace it runs in.

It takes no arguments. Its environment is api/environment.ts; the webhook writes it. It needs the init step's rules,
CAP_NET_ADMIN and CAP_NET_RAW, and the volumes at /var/run/synguard.
`

async function main(): Promise<void> {
  if (process.argv.includes('--help')) {
    process.stdout.write(HELP)
    return
  }
  // The kubelet stops native sidecars after the main containers: nothing is left to wait for.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.kill(process.pid, 'SIGKILL'))
  try {
    const settings = parseSettings(process.env)
    // The bundle lies beside its worker; the sources have a folder for it.
    const script = import.meta.url.endsWith('.ts') ? './datapath/worker.ts' : './worker.js'
    await startSidecar(settings, await openSources(settings), new URL(script, import.meta.url))
    startDroppingPages()
  } catch (error) {
    const code = error instanceof SynguardError ? error.code : 'unexpected'
    createLog({ level: 'info', pod: '', namespace: '' }).fatal(
      { code, error: (error as Error).message },
      'cannot start',
    )
    process.exit(1)
  }
}

await main()
