import { execFile } from 'node:child_process'
import { LabError } from './errors.ts'

export interface CommandOptions {
  readonly stdin?: string
  /** Kills the command with SIGKILL after this many milliseconds; default 30,000. */
  readonly timeoutMs?: number
}

/** Runs a program without a shell and returns its standard output; throws `lab-command-failed` with its error output. */
export function runCommand(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      [...args],
      { timeout: options.timeoutMs ?? 30_000, killSignal: 'SIGKILL', maxBuffer: 16 << 20 },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout)
        const output = stderr.trim() || error.message
        reject(new LabError('lab-command-failed', `${file} ${args.join(' ')}: ${output}`, { cause: error }))
      },
    )
    // A program that ends without reading its input is told by its exit status, not by EPIPE here.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(options.stdin ?? '')
  })
}

/** Runs lines of `ip -batch` in one network namespace: one process for many commands. */
export async function runIpBatch(netns: string, lines: readonly string[]): Promise<void> {
  await runCommand('ip', ['-n', netns, '-batch', '-'], { stdin: `${lines.join('\n')}\n` })
}

/** Writes kernel parameters of one network namespace, e.g. `net.ipv4.ip_forward=1`. */
export async function writeSysctls(netns: string, settings: readonly string[]): Promise<void> {
  await runCommand('ip', ['netns', 'exec', netns, 'sysctl', '-q', '-w', ...settings])
}
