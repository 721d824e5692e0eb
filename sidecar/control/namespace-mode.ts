import type { Logger } from 'pino'
import type { Mode } from '../../api/identity.ts'
import { CONFIGMAP_MODE, KEY_BREAK_GLASS, KEY_MODE } from '../../api/names.ts'
import type { BackoffLimits } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import { createReflector, type StoredObject } from '../../kubernetes/reflector.ts'

/** What the ConfigMap `synguard-mode` says of the Pod's namespace. */
export interface NamespaceMode {
  readonly mode: Mode
  /** Goes before everything else while an operator has the glass broken. */
  readonly breakGlass?: 'audit' | 'off'
}

export interface NamespaceModeOptions {
  readonly client: ApiClient
  readonly namespace: string
  /** Hears what the ConfigMap says, whenever it changed. */
  readonly onChange: (mode: NamespaceMode) => void
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
  readonly backoff?: BackoffLimits
}

const MODES: readonly Mode[] = ['off', 'audit', 'enforce']

/** Of a ConfigMap's data: a word that is no mode counts as `enforce`, and breaks no glass. */
export function readNamespaceMode(data: unknown): NamespaceMode {
  const found = (typeof data === 'object' && data !== null ? data : {}) as Record<string, unknown>
  const breakGlass = found[KEY_BREAK_GLASS]
  return {
    mode: MODES.find((mode) => mode === found[KEY_MODE]) ?? 'enforce',
    ...((breakGlass === 'audit' || breakGlass === 'off') && { breakGlass }),
  }
}

/** What decides the mode of a Pod, from two sides. */
export interface Modes {
  /** As the issuer says: the stricter of the Pod's own and its namespace's, without break-glass. */
  setOfPod(mode: Mode): void
  setOfNamespace(mode: NamespaceMode): void
}

/** Tells the mode that holds, whenever it is said: break-glass, or else the stricter of both sides. */
export function createModes(initial: Mode, onMode: (mode: Mode) => void): Modes {
  let ofPod = initial
  let ofNamespace: NamespaceMode | undefined
  function tell(): void {
    const modes = [ofPod, ofNamespace?.mode]
    onMode(ofNamespace?.breakGlass ?? MODES.findLast((mode) => modes.includes(mode)) ?? 'enforce')
  }
  return {
    setOfPod(mode) {
      ofPod = mode
      tell()
    },
    setOfNamespace(mode) {
      ofNamespace = mode
      tell()
    },
  }
}

/**
 * Follows the namespace's mode at the API server, where it stands when the issuer cannot be reached: one list and one
 * watch. What it said stands while the API server is away. Returns how to stop it.
 */
export function followNamespaceMode(options: NamespaceModeOptions): () => Promise<void> {
  const { client, namespace, onChange, log, random, backoff } = options
  interface Kept extends StoredObject {
    readonly said: NamespaceMode
  }
  let last: NamespaceMode = { mode: 'enforce' }
  const reflector = createReflector<Kept, StoredObject & { readonly data?: unknown }>({
    client,
    path: `/api/v1/namespaces/${namespace}/configmaps`,
    fieldSelector: `metadata.name=${CONFIGMAP_MODE}`,
    strip({ metadata, data }) {
      const { name = '', resourceVersion = '' } = metadata ?? {}
      return { metadata: { name, namespace, resourceVersion }, said: readNamespaceMode(data) }
    },
    onChange(_, after) {
      // Deleted, it comes back; until then no glass is broken, and the mode stays.
      last = after?.said ?? { mode: last.mode }
      onChange(last)
    },
    log,
    random,
    ...(backoff && { backoff }),
  })
  reflector.start()
  return () => reflector.stop()
}
