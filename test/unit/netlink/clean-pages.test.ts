import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from '@jest/globals'
import { cleanPartsOf, type Mapping, parseSmaps } from '../../../sidecar/netlink/clean-pages.ts'

const SMAPS = `00400000-00802000 r--p 00000000 fd:00 1234                               /usr/bin/node
Size:               4104 kB
Rss:                4000 kB
Private_Clean:      4000 kB
Private_Dirty:         0 kB
Shared_Dirty:          0 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me sd
7ffc0a1b2000-7ffc0a1d3000 rw-p 00000000 00:00 0                          [stack]
Rss:                  20 kB
`

describe('the mappings in smaps', () => {
  it('have their place, permissions, file and sizes', () => {
    expect(parseSmaps(SMAPS)).toEqual([
      {
        start: 0x400000,
        bytes: 0x402000,
        permissions: 'r--p',
        path: '/usr/bin/node',
        kibibytes: {
          Size: 4104,
          Rss: 4000,
          Private_Clean: 4000,
          Private_Dirty: 0,
          Shared_Dirty: 0,
          Anonymous: 0,
          Swap: 0,
        },
      },
      { start: 0x7ffc0a1b2000, bytes: 0x21000, permissions: 'rw-p', path: '[stack]', kibibytes: { Rss: 20 } },
    ])
  })
})

describe('the clean parts of a program', () => {
  const clean = parseSmaps(SMAPS)[0] as Mapping
  const heap = { ...clean, start: 0x10_000_000, permissions: 'rw-p', path: '[heap]' }
  const having = (kibibytes: object, rest: object = {}) => ({
    ...clean,
    ...rest,
    kibibytes: { ...clean.kibibytes, ...kibibytes },
  })

  it('are its constants and its code', () => {
    const code = having({}, { permissions: 'r-xp' })
    expect(cleanPartsOf('/usr/bin/node', [clean, code, heap])).toEqual([clean, code])
  })

  it.each([
    ['of another file', having({}, { path: '/usr/lib/libc.so.6' })],
    ['writable', having({}, { permissions: 'rw-p' })],
    ['writable and executable', having({}, { permissions: 'rwxp' })],
    ['shared', having({}, { permissions: 'r--s' })],
    ['written to', having({ Private_Dirty: 4 })],
    ['written to by others', having({ Shared_Dirty: 4 })],
    ['written to and cleaned since', having({ Anonymous: 4 })],
    ['written to and swapped out', having({ Swap: 4 })],
    ['behind the heap, where V8 maps copies and unmaps them', having({}, { start: 0x7f00_0000_0000 })],
    ['one of which the kernel tells nothing', { ...clean, kibibytes: {} }],
  ])('do not have what is %s', (_, mapping) => {
    expect(cleanPartsOf('/usr/bin/node', [mapping, heap])).toEqual([])
  })

  it('are none where there is no heap to tell the program from copies of it', () => {
    expect(cleanPartsOf('/usr/bin/node', [clean])).toEqual([])
  })
})

describe('dropping clean pages', () => {
  it('takes megabytes off a running process, which goes on with all that it had', async () => {
    const program = `
      import { createHash } from 'node:crypto'
      import { readFileSync } from 'node:fs'
      import { Worker } from 'node:worker_threads'
      import { dropCleanPages } from './sidecar/netlink/clean-pages.ts'
      const fileKiB = () => Number(/RssFile:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))[1])
      const digest = () => createHash('sha256').update(JSON.stringify([1, 2, 3].map(String))).digest('hex')
      const echo = "import { parentPort } from 'node:worker_threads'; parentPort.on('message', (n) => parentPort.postMessage(n + 1))"
      const worker = new Worker(new URL('data:text/javascript,' + encodeURIComponent(echo)))
      const ask = (n) => new Promise((answer) => { worker.once('message', answer); worker.postMessage(n) })
      const was = [digest(), await ask(1)]
      const before = fileKiB()
      const dropped = await dropCleanPages()
      const after = fileKiB()
      const is = [digest(), await ask(1)]
      console.log(JSON.stringify({ same: String(was) === String(is), dropped, less: before - after }))
      process.exit(0)`
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--no-warnings', '--input-type=module', '--eval', program],
      { cwd: join(import.meta.dirname, '..', '..', '..'), timeout: 30_000 },
    )
    const { same, dropped, less } = JSON.parse(stdout)
    expect(same).toBe(true)
    expect(dropped).toBeGreaterThan(20e6)
    expect(less).toBeGreaterThan(10_000)
  })
})
