import { existsSync, lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { dirname, resolve, sep } from 'node:path'
import { LabError } from './errors.ts'

/** A directory or file of this machine that a container sees at another place. */
export interface BindMount {
  readonly source: string
  /** Absolute path in the container. */
  readonly path: string
  readonly readOnly: boolean
}

/** What a container may do: Kubernetes' securityContext, resolved. */
export interface Privileges {
  readonly uid: number
  readonly gid: number
  /** The bounding set, in lower case without `cap_`. */
  readonly capabilities: readonly string[]
  /** Gives the capabilities to a user other than root too, as file capabilities on the image's binaries do. */
  readonly ambient: boolean
  readonly noNewPrivileges: boolean
}

export interface SandboxOptions {
  readonly netns: string
  /** An empty directory of the run: the container's root is mounted there, in the container's mount namespace only. */
  readonly rootMountPoint: string
  readonly mounts: readonly BindMount[]
  readonly readOnlyRoot: boolean
  readonly privileges: Privileges
  readonly workingDirectory?: string
  readonly command: readonly string[]
}

/** The checkout that this program runs from. */
export const CHECKOUT = resolve(import.meta.dirname, '..')

/** Fresh in each container: no other's files, no sockets of this machine's services. */
const OWN_DIRECTORIES = ['/run', '/tmp']
/** Shared with the machine; writable, as they hold no files of it. */
const KERNEL_DIRECTORIES = ['/dev', '/proc', '/sys']
/** Of no use in a container, or private to the machine's users. */
const HIDDEN = new Set(['/root', '/home', '/boot', '/mnt', '/media', '/srv', '/lost+found'])

const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
const isBelow = (path: string, directory: string) => path === directory || path.startsWith(`${directory}${sep}`)

/** The installation that this process's Node belongs to. */
function nodeInstallation(): string {
  return dirname(dirname(process.execPath))
}

function rootLines(): string[] {
  const lines: string[] = []
  for (const name of readdirSync('/')) {
    const path = `/${name}`
    if (OWN_DIRECTORIES.includes(path) || KERNEL_DIRECTORIES.includes(path) || HIDDEN.has(path)) continue
    const stat = lstatSync(path)
    if (stat.isSymbolicLink()) lines.push(`ln -s ${quote(readlinkSync(path))} "$R"${quote(path)}`)
    else if (stat.isDirectory())
      lines.push(`mkdir "$R"${quote(path)}`, `mount -o rbind,ro ${quote(path)} "$R"${quote(path)}`)
  }
  for (const path of KERNEL_DIRECTORIES) lines.push(`mkdir "$R"${path}`, `mount --rbind ${path} "$R"${path}`)
  lines.push('mkdir -m 755 "$R/run"', 'mkdir -m 1777 "$R/tmp"', 'mkdir -p "$R/run/lock"')
  // Programs must be reachable where the machine hides them from other users (/root) or where /tmp is our own.
  for (const path of new Set([CHECKOUT, nodeInstallation()])) {
    const [, top] = path.split(sep)
    if (!HIDDEN.has(`/${top}`) && !OWN_DIRECTORIES.includes(`/${top}`)) continue
    lines.push(`mkdir -p "$R"${quote(path)}`, `mount -o bind,ro ${quote(path)} "$R"${quote(path)}`)
  }
  return lines
}

/** `/var/run` is `/run` on every machine that has the link, and mkdir must not follow it out of the container's root. */
function pathInRoot(path: string): string {
  return isBelow(path, '/var/run') ? path.slice('/var'.length) : path
}

function mountLines(mount: BindMount, overlays: Set<string>): string[] {
  const path = pathInRoot(mount.path)
  const lines: string[] = []
  if (!existsSync(path) && !OWN_DIRECTORIES.some((own) => isBelow(path, own))) {
    let parent = dirname(path)
    while (!existsSync(parent)) parent = dirname(parent)
    if (parent !== '/' && !overlays.has(parent)) {
      // The mount point must be made in a directory of the machine: in a copy on top of it, never in the directory itself.
      overlays.add(parent)
      const over = `"$R"/.overlay/${overlays.size}`
      lines.push(
        `mkdir -p ${over}/upper ${over}/work`,
        `mount -t overlay -o lowerdir=${quote(parent)},upperdir=${over}/upper,workdir=${over}/work overlay "$R"${quote(parent)}`,
      )
    }
  }
  const isDirectory = lstatSync(mount.source).isDirectory()
  lines.push(
    `mkdir -p "$R"${quote(isDirectory ? path : dirname(path))}`,
    ...(isDirectory ? [] : [`touch "$R"${quote(path)}`]),
    `mount -o bind,${mount.readOnly ? 'ro' : 'rw'} ${quote(mount.source)} "$R"${quote(path)}`,
  )
  return lines
}

function privilegeArguments({ uid, gid, capabilities, ambient, noNewPrivileges }: Privileges): string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name}`)].join(',')
  const isAmbient = ambient && uid !== 0
  return [
    'setpriv',
    `--reuid=${uid}`,
    `--regid=${gid}`,
    '--clear-groups',
    `--inh-caps=${isAmbient ? set : '-all'}`,
    `--ambient-caps=${isAmbient ? set : '-all'}`,
    `--bounding-set=${set}`,
    ...(noNewPrivileges ? ['--no-new-privs'] : []),
  ]
}

/**
 * The argument vector that runs a command as a container would: in the Pod's network namespace, with a root file system
 * and mount namespace of its own (the machine's files read-only beneath), as the user and with the powers given.
 * Every step replaces itself (exec), so the process that is started is the container's. The process table is the machine's.
 */
export function sandboxCommand(options: SandboxOptions): string[] {
  const overlays = new Set<string>()
  const script = [
    'set -e',
    `R=${quote(options.rootMountPoint)}`,
    'mount -t tmpfs -o mode=755,size=64m tmpfs "$R"',
    ...rootLines(),
    ...options.mounts.flatMap((mount) => {
      if (!mount.path.startsWith('/') || mount.path.split('/').includes('..')) {
        throw new LabError('lab-unsupported', `mountPath "${mount.path}" must be absolute and without ".."`)
      }
      return mountLines(mount, overlays)
    }),
    ...(options.readOnlyRoot ? ['mount -o remount,bind,ro "$R"'] : []),
    'exec "$@"',
  ].join('\n')
  return [
    ...['ip', 'netns', 'exec', options.netns, 'unshare', '--mount', '--propagation', 'private'],
    ...['sh', '-c', script, 'sandbox', 'chroot', options.rootMountPoint],
    ...privilegeArguments(options.privileges),
    ...['env', `--chdir=${options.workingDirectory ?? '/'}`],
    ...options.command,
  ]
}
