/** The part of the directory that the packet path holds: what it asked for, as long as that is known to be right. */
import type { DirectoryEntry } from '../../api/identity.ts'
import type { ToWorker } from '../datapath/messages.ts'

export interface DirectoryMirror {
  /** Answers the packet path; `unknown`: the issuer cannot be asked, which holds for the packets that wait now. */
  answer(address: string, entry: DirectoryEntry | 'unknown'): void
  /** Tells the packet path of a change, where it holds the address. */
  update(address: string, entry: DirectoryEntry): void
}

/** `isKnown` is asked every `intervalMs`; what is no longer known is forgotten, and asked for at the next packet. */
export function createDirectoryMirror(
  tell: (message: ToWorker) => void,
  isKnown: (address: string) => boolean,
  intervalMs: number,
): DirectoryMirror {
  const told = new Set<string>()

  function answer(address: string, entry: DirectoryEntry | 'unknown'): void {
    if (entry === 'unknown') told.delete(address)
    else told.add(address)
    tell({ type: 'resolved', address, entry })
  }

  setInterval(() => {
    for (const address of told) {
      if (isKnown(address)) continue
      told.delete(address)
      tell({ type: 'forget-address', address })
    }
  }, intervalMs)

  return {
    answer,
    update(address, entry) {
      if (told.has(address)) answer(address, entry)
    },
  }
}
