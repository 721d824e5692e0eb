/**
 * The process that cleans up after a run. It holds one end of a pipe whose other end the lab's process holds:
 * the kernel closes that end however the lab ends, SIGKILL included.
 * Arguments: run id, run directory.
 */
import { removeRemains } from './remains.ts'

const [runId, directory] = process.argv.slice(2)
if (runId === undefined || !/^[a-z0-9]{4,12}$/.test(runId) || directory === undefined) process.exit(2)

// The lab's terminal and its supervisor signal the lab; this process has its own session and ignores stray ones.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined)
process.stdin.resume()
process.stdin.on('error', () => undefined)
process.stdin.on('close', () => {
  removeRemains(runId, directory).then(
    () => process.exit(0),
    () => process.exit(1),
  )
})
