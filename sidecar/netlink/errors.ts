import { constants } from 'node:os'
import { SynguardError } from '../../api/errors.ts'

/** What the netlink and raw sockets can fail with. */
export const NETLINK_ERRORS = {
  'netlink-socket':
    'A netlink or raw socket could not be opened; the message names the call and the capability it needs.',
  'netlink-request': 'The kernel refused a netlink request; the message names the request and the errno.',
  'netlink-no-answer': 'The kernel did not acknowledge a netlink request in time.',
  'netlink-dump-interrupted': 'A kernel table changed during each of the attempts to list it.',
  'netlink-argument': 'A value cannot be written into a netlink message; the message names the field and its range.',
} as const

export type NetlinkErrorCode = keyof typeof NETLINK_ERRORS

/** A failure of a socket of this folder: `code` from NETLINK_ERRORS and, where the kernel answered, its errno. */
export class NetlinkError extends SynguardError {
  declare readonly code: NetlinkErrorCode
  /** The errno's name, `EPERM`; undefined where the kernel gave none. */
  readonly errno: string | undefined

  constructor(code: NetlinkErrorCode, message: string, errno?: number) {
    const name = errno === undefined || errno === 0 ? undefined : errnoName(errno)
    super(code, name === undefined ? message : `${message} (${name})`)
    this.errno = name
  }
}

/** Second names of EAGAIN and EOPNOTSUPP. */
const ALIASES: readonly string[] = ['EWOULDBLOCK', 'ENOTSUP']
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .filter(([name]) => !ALIASES.includes(name))
    .map(([name, value]) => [value, name]),
)

/** The name of an errno given as 1 or as -1: `EPERM`; a number that this machine has no name for as text. */
export function errnoName(errno: number): string {
  return NAMES.get(Math.abs(errno)) ?? `errno ${Math.abs(errno)}`
}
