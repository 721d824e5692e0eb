import type { PodIdentity } from '../../api/identity.ts'
import { createIssueRegister, type IssueRegisterOptions } from './issue-register.ts'
import { createVoidStore, type VoidStore, type VoidStoreOptions } from './void-store.ts'

/** What replicas share of identities and must know again after a restart: the void list, and who has which WIT. */
export interface Ledger {
  /** Resolves once it is known what became void while nobody looked. */
  start(): Promise<void>
  /** Whether that is so; before, no WIT may be issued or be taken for good. */
  synced(): boolean
  /** Resolves once a WIT of that identity may be handed out. Rejects with `cluster-unavailable`. */
  record(identity: PodIdentity): Promise<void>
  /** Entries of the void list's ConfigMap that say nothing. */
  invalid(): ReturnType<VoidStore['invalid']>
  stop(): Promise<void>
}

export type LedgerOptions = Omit<VoidStoreOptions, 'name'> &
  Pick<IssueRegisterOptions, 'client'> & {
    /** Names of the ConfigMaps; the register's have a digit behind it. */
    readonly names: { readonly voids: string; readonly register: string }
  }

const SYNC_CHECK_MS = 50

export function createLedger({ names, ...options }: LedgerOptions): Ledger {
  const store = createVoidStore({ ...options, name: names.voids })
  const register = createIssueRegister({ ...options, name: names.register, store })
  let stopped = false

  return {
    async start() {
      store.start()
      while (!store.synced() && !stopped) await new Promise((resolve) => setTimeout(resolve, SYNC_CHECK_MS))
      if (!stopped) await register.start()
    },
    synced: () => store.synced() && register.synced(),
    record: register.record,
    invalid: store.invalid,
    async stop() {
      stopped = true
      await Promise.all([register.stop(), store.stop()])
    },
  }
}
