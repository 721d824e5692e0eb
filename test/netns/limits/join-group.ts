/**
 * Stands in the bundle where the sidecar's program was. It asks the test to put this process into its Pod's control
 * group and then becomes the sidecar: what the sidecar uses is counted from its first byte on, after each restart too.
 */
import { connect } from 'node:net'
import { join } from 'node:path'

/** Beside the bundle's files. */
export const GATE_SOCKET = 'gate.sock'
export const PROGRAM = 'sidecar.js'

/** `folder` is where the sidecar's bundle lies. */
export async function joinAndBecome(folder: string): Promise<void> {
  const socket = connect(join(folder, GATE_SOCKET))
  socket.write(`${process.pid} ${process.env.SYNGUARD_POD_NAME ?? ''}\n`)
  await new Promise((joined, failed) => socket.once('data', joined).once('error', failed).once('close', failed))
  socket.destroy()
  const arguments_ = [process.execPath, ...process.execArgv, join(folder, PROGRAM)]
  process.execve?.(process.execPath, arguments_, process.env as Record<string, string>)
}
