import { type FSWatcher, watch } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { SynguardError } from '../../../api/errors.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { type NetworkPolicy, policyName } from '../../../policy/types.ts'
import { ControlError } from '../errors.ts'
import type { PolicySource, PolicySourceListener } from './source.ts'

export interface DirectorySourceOptions {
  readonly path: string
  /** Only its policies are given; other namespaces' are parsed and left out. */
  readonly namespace: string
  /** Waits this long after a change, so that a burst is one reading. */
  readonly debounceMs?: number
  /** Looks for changes this often where the kernel tells of none (some network file systems). */
  readonly pollMs?: number
}

const DEBOUNCE_MS = 50
const POLL_MS = 2000
/** A file of policies is text for people; anything larger is a mistake, and must not fill the memory. */
const MAX_FILE_BYTES = 4 * 1024 * 1024
const MAX_FILES = 1000
const POLICY_FILE = /^[^.].*\.(ya?ml|json)$/

interface KnownFile {
  /** Changes with every write and every rename over it. */
  readonly signature: string
  /** The last good policies; undefined where the file was never good. */
  readonly policies: readonly NetworkPolicy[] | undefined
}

/**
 * NetworkPolicies from the YAML and JSON files of a directory (not of folders in it), read again on each change. A file
 * that turns bad keeps its last good policies and reports the error; a file that is gone takes its policies along. The
 * source is synced once every file was good at the same time: a start with a bad file waits for its repair, as the file
 * may hold the policy that isolates.
 */
export function createDirectorySource(options: DirectorySourceOptions): PolicySource {
  const debounceMs = options.debounceMs ?? DEBOUNCE_MS
  const known = new Map<string, KnownFile>()
  let listener: PolicySourceListener | undefined
  let watcher: FSWatcher | undefined
  let debounce: NodeJS.Timeout | undefined
  let poll: NodeJS.Timeout | undefined
  let reading = false
  let readAgain = false
  let synced = false
  let given: string | undefined
  let reported: ReadonlySet<string> = new Set()

  /** A poll finds the same mistakes again and again: each is told once, until a reading without it. */
  function report(errors: readonly SynguardError[]): void {
    for (const error of errors) if (!reported.has(error.message)) listener?.onError(error)
    reported = new Set(errors.map((error) => error.message))
  }

  function changed(): void {
    if (listener === undefined) return
    clearTimeout(debounce)
    debounce = setTimeout(() => void readNow(), debounceMs)
  }

  async function readNow(): Promise<void> {
    if (reading) {
      readAgain = true
      return
    }
    reading = true
    try {
      await readAll()
    } catch (error) {
      report([asSynguardError(error, options.path)])
    }
    reading = false
    if (readAgain) {
      readAgain = false
      await readNow()
    }
  }

  async function readAll(): Promise<void> {
    watchDirectory()
    const names = (await readdir(options.path)).filter((name) => POLICY_FILE.test(name)).sort()
    if (names.length > MAX_FILES) {
      throw new ControlError('policies-unreadable', `${options.path} has more than ${MAX_FILES} files of policies`)
    }
    const errors: SynguardError[] = []
    for (const name of known.keys()) if (!names.includes(name)) known.delete(name)
    for (const name of names) {
      try {
        await readFileNamed(name)
      } catch (error) {
        errors.push(asSynguardError(error, join(options.path, name)))
      }
    }
    const duplicate = findDuplicate(known)
    if (duplicate === undefined) publish(errors.length === 0)
    else errors.push(duplicate)
    report(errors)
  }

  async function readFileNamed(name: string): Promise<void> {
    const path = join(options.path, name)
    const before = known.get(name)
    const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
      // Renamed or removed since the listing: the next reading, which that caused, sees it.
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    if (file === undefined) return
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true })
      const signature = [dev, ino, size, mtimeNs, ctimeNs].join(' ')
      if (size > MAX_FILE_BYTES)
        throw new ControlError('policies-unreadable', `${path} is larger than ${MAX_FILE_BYTES} bytes`)
      known.set(name, { signature, policies: before?.policies })
      const text = await file.readFile('utf8')
      if (text.trim() === '' && (before?.policies?.length ?? 0) > 0) {
        // A file that is written in place is empty for a moment: that must not lift an isolation.
        throw new ControlError('policies-invalid', `${path} is empty; to take its policies away remove the file`)
      }
      const policies = parseNetworkPolicies(text, name, { otherKinds: 'ignore', defaultNamespace: 'default' })
      known.set(name, { signature, policies })
    } finally {
      await file.close()
    }
  }

  function publish(complete: boolean): void {
    synced ||= complete
    const policies = [...known.values()]
      .flatMap((file) => file.policies ?? [])
      .filter((policy) => policy.namespace === options.namespace)
    const set = { policies, synced }
    const text = JSON.stringify(set, (_, value: unknown) => (value instanceof Uint8Array ? [...value] : value))
    if (text === given) return
    given = text
    listener?.onChange(set)
  }

  function watchDirectory(): void {
    if (watcher !== undefined || listener === undefined) return
    try {
      watcher = watch(options.path, { persistent: false }, changed)
      watcher.on('error', dropWatcher)
    } catch {
      // Not there, or no inotify: the poll goes on and the reading says what is wrong.
      watcher = undefined
    }
  }

  function dropWatcher(): void {
    watcher?.close()
    watcher = undefined
  }

  /** True where what the directory shows now differs from what was read. */
  async function looksChanged(): Promise<boolean> {
    const names = (await readdir(options.path)).filter((name) => POLICY_FILE.test(name))
    if (names.length !== known.size) return true
    for (const name of names) {
      const { dev, ino, size, mtimeNs, ctimeNs } = await stat(join(options.path, name), { bigint: true })
      if (known.get(name)?.signature !== [dev, ino, size, mtimeNs, ctimeNs].join(' ')) return true
    }
    return false
  }

  async function pollOnce(): Promise<void> {
    if (await looksChanged().catch(() => true)) {
      // The directory itself may have been replaced, and the watch is on the old one.
      dropWatcher()
      changed()
    }
    if (listener !== undefined) poll = setTimeout(() => void pollOnce(), options.pollMs ?? POLL_MS)
  }

  return {
    start(to) {
      listener = to
      void readNow()
      poll = setTimeout(() => void pollOnce(), options.pollMs ?? POLL_MS)
    },
    stop() {
      listener = undefined
      clearTimeout(debounce)
      clearTimeout(poll)
      dropWatcher()
    },
  }
}

function findDuplicate(known: ReadonlyMap<string, KnownFile>): ControlError | undefined {
  const fileOf = new Map<string, string>()
  for (const [file, { policies }] of known) {
    for (const policy of policies ?? []) {
      const name = policyName(policy)
      const other = fileOf.get(name)
      if (other !== undefined && other !== file) {
        return new ControlError('policies-invalid', `${name} is in ${other} and in ${file}; remove one`)
      }
      fileOf.set(name, file)
    }
  }
  return undefined
}

function asSynguardError(error: unknown, path: string): SynguardError {
  if (error instanceof SynguardError) return error
  const { code, message } = error as NodeJS.ErrnoException
  return new ControlError('policies-unreadable', `${path} cannot be read (${code ?? message})`)
}
