import { dropCleanPages } from '../netlink/clean-pages.ts'

/** What starting read of Node's binary goes once the sidecar stands. */
const FIRST_MILLISECONDS = 5_000
/** What compiling reads, which goes on for as long as the load is new to the process; a drop takes a millisecond. */
const EVERY_MILLISECONDS = 60_000

/** Gives back, now and then, the pages of Node's binary that were read once; see dropCleanPages. */
export function startDroppingPages(): void {
  setTimeout(() => void dropCleanPages(), FIRST_MILLISECONDS)
  setInterval(() => void dropCleanPages(), EVERY_MILLISECONDS)
}
