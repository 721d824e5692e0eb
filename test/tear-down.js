import { rmSync } from 'node:fs'

/** Takes away what set-up.js made. */
export default function tearDown() {
  const folder = process.env.SYNGUARD_TEST_FOLDER
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
}
