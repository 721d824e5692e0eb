import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { V1ConfigMapProjection, V1KeyToPath, V1Pod, V1Volume, V1VolumeProjection } from '@kubernetes/client-node'
import { downwardField } from './environment.ts'
import { LabError } from './errors.ts'

/** What volumes are filled from. */
export interface VolumeSources {
  /** A token for the Pod, for one audience. */
  mintToken(pod: V1Pod, audience: string, lifetimeSeconds: number): Promise<string>
  /** A ConfigMap's data; undefined where there is none. */
  configMap(namespace: string, name: string): Readonly<Record<string, string>> | undefined
}

/** The API server's own audience, which a projected token without one has. */
export const API_AUDIENCE = 'https://kubernetes.default.svc'
const DEFAULT_TOKEN_SECONDS = 3600

type Files = Map<string, string>

function unsupported(volume: V1Volume, what: string): LabError {
  return new LabError('lab-unsupported', `volume ${volume.name}: ${what}`)
}

function configMapFiles(
  sources: VolumeSources,
  pod: V1Pod,
  volume: V1Volume,
  map: { name?: string | undefined; items?: V1KeyToPath[] | undefined; optional?: boolean | undefined },
): [string, string][] {
  const data = sources.configMap(pod.metadata?.namespace ?? '', map.name ?? '')
  if (data === undefined) {
    if (map.optional === true) return []
    throw unsupported(volume, `ConfigMap ${pod.metadata?.namespace}/${map.name} does not exist in the lab`)
  }
  if (!map.items) return Object.entries(data)
  return map.items.map(({ key, path }) => {
    const text = data[key]
    if (text === undefined) throw unsupported(volume, `ConfigMap ${map.name} has no key ${key}`)
    return [path, text]
  })
}

async function projectedFiles(sources: VolumeSources, pod: V1Pod, volume: V1Volume): Promise<Files> {
  const files: Files = new Map()
  const add = (entries: readonly (readonly [string, string])[]) => {
    for (const [path, text] of entries) files.set(path, text)
  }
  const projections: readonly V1VolumeProjection[] = volume.projected?.sources ?? []
  for (const { serviceAccountToken: token, configMap, downwardAPI } of projections) {
    if (token) {
      const seconds = token.expirationSeconds ?? DEFAULT_TOKEN_SECONDS
      add([[token.path, await sources.mintToken(pod, token.audience ?? API_AUDIENCE, seconds)]])
    } else if (configMap) {
      add(configMapFiles(sources, pod, volume, configMap satisfies V1ConfigMapProjection))
    } else if (downwardAPI) {
      add((downwardAPI.items ?? []).map((item) => [item.path, downwardField(pod, item.fieldRef?.fieldPath ?? '')]))
    } else throw unsupported(volume, 'the lab projects serviceAccountToken, configMap and downwardAPI only')
  }
  return files
}

/** Replaces each file in one step, so that a reader never sees half of it. */
function writeFiles(directory: string, files: Files, mode: number): void {
  for (const [path, text] of files) {
    if (path.startsWith('/') || path.split('/').includes('..')) {
      throw new LabError('lab-unsupported', `path "${path}" in a volume must be relative and without ".."`)
    }
    const target = join(directory, path)
    mkdirSync(dirname(target), { recursive: true, mode: 0o755 })
    const fresh = `${target}.new`
    writeFileSync(fresh, text)
    chmodSync(fresh, mode)
    renameSync(fresh, target)
  }
}

/**
 * Makes a Pod's volume below `directory` and returns the path that its mounts bind; called again it refreshes the files
 * of a projected or ConfigMap volume in place, as the kubelet does. Throws `lab-unsupported` for other kinds.
 */
export async function materializeVolume(
  volume: V1Volume,
  pod: V1Pod,
  directory: string,
  sources: VolumeSources,
): Promise<string> {
  if (volume.hostPath) return volume.hostPath.path
  const path = join(directory, volume.name)
  mkdirSync(path, { recursive: true })
  if (volume.emptyDir) {
    chmodSync(path, 0o777) // as the kubelet makes it: any of the Pod's users may write
    return path
  }
  chmodSync(path, 0o755)
  if (volume.projected) {
    writeFiles(path, await projectedFiles(sources, pod, volume), volume.projected.defaultMode ?? 0o644)
    return path
  }
  if (volume.configMap) {
    const files = new Map(configMapFiles(sources, pod, volume, volume.configMap))
    writeFiles(path, files, volume.configMap.defaultMode ?? 0o644)
    return path
  }
  throw unsupported(volume, 'the lab offers emptyDir, projected, configMap and hostPath')
}
