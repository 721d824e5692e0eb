import type { V1Container, V1Pod } from '@kubernetes/client-node'
import { CONTAINER_INIT, CONTAINER_SIDECAR } from '../api/names.ts'
import type { Privileges } from './sandbox.ts'

/** What containerd gives a container that asks for nothing (containerd/pkg/oci: defaultUnixCaps). */
export const DEFAULT_CAPABILITIES = [
  'chown',
  'dac_override',
  'fsetid',
  'fowner',
  'mknod',
  'net_raw',
  'setgid',
  'setuid',
  'setfcap',
  'setpcap',
  'net_bind_service',
  'sys_chroot',
  'kill',
  'audit_write',
] as const

/** Every capability of Linux 6 (include/uapi/linux/capability.h) but SYS_RESOURCE, which this lab's host may lack. */
const ALL_CAPABILITIES = [
  ...DEFAULT_CAPABILITIES,
  ...['dac_read_search', 'linux_immutable', 'net_broadcast', 'net_admin', 'ipc_lock', 'ipc_owner', 'sys_module'],
  ...['sys_rawio', 'sys_ptrace', 'sys_pacct', 'sys_admin', 'sys_boot', 'sys_nice', 'sys_time', 'sys_tty_config'],
  ...['lease', 'audit_control', 'mac_override', 'mac_admin', 'syslog', 'wake_alarm', 'block_suspend', 'audit_read'],
  ...['perfmon', 'bpf', 'checkpoint_restore'],
]

const normalize = (names: readonly string[] | undefined) =>
  (names ?? []).map((name) => name.toLowerCase().replace(/^cap_/, ''))

/** Kubernetes: ALL is applied first, then single names; an add wins over a drop of ALL, a drop over an add of ALL. */
function capabilitySet(add: readonly string[], drop: readonly string[]): string[] {
  const set = new Set<string>(DEFAULT_CAPABILITIES)
  if (drop.includes('all')) set.clear()
  if (add.includes('all')) for (const name of ALL_CAPABILITIES) set.add(name)
  for (const name of add) if (name !== 'all') set.add(name)
  for (const name of drop) set.delete(name)
  return [...set].sort()
}

/** A container's user and powers from its securityContext and its Pod's; an image's user is root here. */
export function containerPrivileges(pod: V1Pod, container: V1Container): Privileges {
  const own = container.securityContext ?? {}
  const shared = pod.spec?.securityContext ?? {}
  const isPrivileged = own.privileged === true
  const { add, drop } = own.capabilities ?? {}
  return {
    uid: own.runAsUser ?? shared.runAsUser ?? 0,
    gid: own.runAsGroup ?? shared.runAsGroup ?? 0,
    capabilities: isPrivileged ? [...ALL_CAPABILITIES].sort() : capabilitySet(normalize(add), normalize(drop)),
    // Our images' binaries carry file capabilities; the checkout's do not.
    ambient: container.name === CONTAINER_INIT || container.name === CONTAINER_SIDECAR,
    noNewPrivileges: own.allowPrivilegeEscalation === false,
  }
}
