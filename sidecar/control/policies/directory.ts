import { type FSWatcher, watch } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { SynguardError } from '../../../api/errors.ts'
import { ControlError } from '../errors.ts'
import { looksChanged, type PolicyFile, readPolicyFile } from './policy-file.ts'
import type { PolicySet, PolicySource, PolicySourceListener } from './source.ts'

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
const MAX_FILES = 1000
const POLICY_FILE = /^[^.].*\.(ya?ml|json)$/

/**
 * NetworkPolicies from the YAML and JSON files of a directory (not of folders in it); what changes is read again. A file
 * that turns bad keeps its last good policies and reports the error; a file that is gone takes its policies along. The
 * source is synced once every file was good at the same time: a start with a bad file waits for its repair, as the file
 * may hold the policy that isolates.
 */
export function createDirectorySource(options: DirectorySourceOptions): PolicySource {
  const debounceMs = options.debounceMs ?? DEBOUNCE_MS
  const known = new Map<string, PolicyFile>()
  let listener: PolicySourceListener | undefined
  let watcher: FSWatcher | undefined
  let debounce: NodeJS.Timeout | undefined
  let poll: NodeJS.Timeout | undefined
  let reading = false
  let readAgain = false
  let given: PolicySet | undefined
  let confirmedAt: number | undefined
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
      const error = await readFileNamed(name)
      if (error !== undefined) errors.push(error)
    }
    const duplicate = findDuplicate(known)
    if (duplicate === undefined) publish(errors.length === 0)
    else errors.push(duplicate)
    if (errors.length === 0) confirmedAt = Date.now()
    report(errors)
  }

  /** What is wrong with the file, undefined where nothing is. */
  async function readFileNamed(name: string): Promise<SynguardError | undefined> {
    const path = join(options.path, name)
    try {
      const file = await readPolicyFile(path, name, options.namespace, known.get(name))
      if (file !== undefined) known.set(name, file)
      return file?.error
    } catch (error) {
      return asSynguardError(error, path)
    }
  }

  function publish(complete: boolean): void {
    const policies = [...known.values()].flatMap((file) => file.policies ?? [])
    const before = given
    given = { policies, synced: (before?.synced ?? false) || complete }
    // What did not change is the same object as before.
    const isSame =
      before?.synced === given.synced &&
      before.policies.length === policies.length &&
      policies.every((policy, index) => policy === before.policies[index])
    if (!isSame) listener?.onChange(given)
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
  async function directoryLooksChanged(): Promise<boolean> {
    const names = (await readdir(options.path)).filter((name) => POLICY_FILE.test(name))
    if (names.length !== known.size) return true
    for (const name of names) if (await looksChanged(join(options.path, name), known.get(name))) return true
    return false
  }

  async function pollOnce(): Promise<void> {
    if (await directoryLooksChanged().catch(() => true)) {
      // The directory itself may have been replaced, and the watch is on the old one.
      dropWatcher()
      changed()
    } else if (reported.size === 0) confirmedAt = Date.now()
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
    confirmedAt: () => (given?.synced ? confirmedAt : undefined),
  }
}

function findDuplicate(known: ReadonlyMap<string, PolicyFile>): ControlError | undefined {
  const fileOf = new Map<string, string>()
  for (const [file, { names }] of known) {
    for (const name of names) {
      const other = fileOf.get(name)
      if (other !== undefined) {
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
