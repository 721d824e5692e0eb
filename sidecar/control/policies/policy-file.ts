/** One file of a directory of policies: read where it may have changed, parsed where it did. */
import { createHash } from 'node:crypto'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'
import { SynguardError } from '../../../api/errors.ts'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { type NetworkPolicy, policyName } from '../../../policy/types.ts'
import { ControlError } from '../errors.ts'

export interface PolicyFile {
  /** Changes with every write and every rename over it, but for writes within one tick of the kernel's clock. */
  readonly signature: string
  /** False where the file was so young that a later write may have left its signature as it is. */
  readonly isSettled: boolean
  /** Of the text that was read last. */
  readonly textHash: string
  /** The last good policies of the namespace, unchanged ones as the same objects; undefined where it was never good. */
  readonly policies: readonly NetworkPolicy[] | undefined
  /** `namespace/name` of all its last good policies, those of other namespaces too. */
  readonly names: readonly string[]
  /** What is wrong with it now. */
  readonly error: SynguardError | undefined
}

/** A file of policies is text for people; anything larger is a mistake, and must not fill the memory. */
const MAX_FILE_BYTES = 4 * 1024 * 1024
/** Coarser than the clock of any file system. */
const SETTLED_AFTER_MS = 2_000

interface Look {
  readonly signature: string
  readonly bytes: bigint
  readonly isSettled: boolean
}

async function look(file: FileHandle | string): Promise<Look> {
  const options = { bigint: true } as const
  const nowMs = Date.now()
  const found = typeof file === 'string' ? await stat(file, options) : await file.stat(options)
  const { dev, ino, size, mtimeNs, ctimeNs, ctimeMs } = found
  const signature = [dev, ino, size, mtimeNs, ctimeNs].join(' ')
  return { signature, bytes: size, isSettled: Number(ctimeMs) < nowMs - SETTLED_AFTER_MS }
}

/** Whether what is at `path` may be other than what was read. Rejects where there is nothing. */
export async function looksChanged(path: string, known: PolicyFile | undefined): Promise<boolean> {
  return known?.isSettled !== true || known.signature !== (await look(path)).signature
}

/**
 * The file as it stands now, `before` itself where it did not change; undefined where there is none any more. A file that
 * turned bad keeps its last good policies. Rejects where it cannot be opened or read.
 */
export async function readPolicyFile(
  path: string,
  fileName: string,
  namespace: string,
  before: PolicyFile | undefined,
): Promise<PolicyFile | undefined> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    // Renamed or removed since the listing: the next reading, which that caused, sees it.
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (file === undefined) return undefined
  try {
    const { signature, bytes, isSettled } = await look(file)
    if (before?.isSettled && before.signature === signature) return before
    if (bytes > MAX_FILE_BYTES) {
      throw new ControlError('policies-unreadable', `${path} is larger than ${MAX_FILE_BYTES} bytes`)
    }
    const text = await file.readFile('utf8')
    const textHash = createHash('sha256').update(text).digest('base64')
    if (before?.textHash === textHash) return { ...before, signature, isSettled }
    return { ...parse(text, { path, fileName, namespace, before }), signature, isSettled, textHash }
  } finally {
    await file.close()
  }
}

interface Parsing {
  readonly path: string
  readonly fileName: string
  readonly namespace: string
  readonly before: PolicyFile | undefined
}

function parse(
  text: string,
  { path, fileName, namespace, before }: Parsing,
): Pick<PolicyFile, 'policies' | 'names' | 'error'> {
  try {
    if (text.trim() === '' && (before?.names.length ?? 0) > 0) {
      // A file that is written in place is empty for a moment: that must not lift an isolation.
      throw new ControlError('policies-invalid', `${path} is empty; to take its policies away remove the file`)
    }
    const all = parseNetworkPolicies(text, fileName, { otherKinds: 'ignore', defaultNamespace: 'default' })
    const known = new Map(before?.policies?.map((policy) => [policy.name, policy]))
    const policies = all
      .filter((policy) => policy.namespace === namespace)
      .map((policy) => {
        const same = known.get(policy.name)
        return isDeepStrictEqual(same, policy) && same !== undefined ? same : policy
      })
    return { policies, names: all.map(policyName), error: undefined }
  } catch (error) {
    if (!(error instanceof SynguardError)) throw error
    return { policies: before?.policies, names: before?.names ?? [], error }
  }
}
