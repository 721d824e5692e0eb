/** What is done with Pods of a cluster: found, waited for, asked. */
import type { V1Pod, V1PodList } from '@kubernetes/client-node'
import { getJson, kubectl, type Output, tryKubectl, until } from './kubectl.ts'

/** Pods of that app that are not on their way out. */
export async function listPods(namespace: string, app: string): Promise<V1Pod[]> {
  const { items } = await getJson<V1PodList>('-n', namespace, 'pods', '-l', `app=${app}`)
  return items.filter(({ metadata }) => metadata?.deletionTimestamp === undefined)
}

export async function firstPod(namespace: string, app: string): Promise<V1Pod> {
  const [pod] = await listPods(namespace, app)
  if (pod === undefined) throw new Error(`no Pod of ${namespace}/${app}`)
  return pod
}

export async function addressOf(namespace: string, app: string): Promise<string> {
  return (await firstPod(namespace, app)).status?.podIP ?? ''
}

/** Names of all containers, ours too, in the order in which they start. */
export function containersOf(pod: V1Pod): string[] {
  return [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].map(({ name }) => name)
}

/** Waits for the Deployments of a namespace, all at once; where one does not get ready, it says what its Pods say. */
export async function awaitRollouts(namespace: string, ...apps: readonly string[]): Promise<void> {
  await Promise.all(
    apps.map(async (app) => {
      const rollout = ['-n', namespace, 'rollout', 'status', `deployment/${app}`, '--timeout=120s']
      const { code, stderr } = await tryKubectl(rollout)
      if (code === 0) return
      const pods = ['-n', namespace, 'get', 'pods', '-l', `app=${app}`, '-o', 'wide']
      const logs = ['-n', namespace, 'logs', `deployment/${app}`, '--all-containers', '--prefix', '--tail=5']
      const said = [await tryKubectl(pods), await tryKubectl(logs)].map(({ stdout, stderr }) => stdout + stderr)
      throw new Error([`${namespace}/${app}: ${stderr}`, ...said].join('\n'))
    }),
  )
}

/** Runs a command in a Deployment's Pod, in its container `app`. */
export function run(namespace: string, app: string, ...command: readonly string[]): Promise<Output> {
  return tryKubectl(['-n', namespace, 'exec', `deployment/${app}`, '-c', 'app', '--', ...command])
}

/** What a program in that Pod sees of a URL: what came, or why nothing did. */
export async function fetchFrom(namespace: string, app: string, url: string): Promise<string> {
  const { code, stdout, stderr } = await run(namespace, app, 'timeout', '5', 'wget', '-q', '-O', '-', url)
  if (code === 0) return stdout.trim()
  if (/refused/i.test(stderr)) return 'refused'
  if (/reset/i.test(stderr)) return 'reset'
  if (code === 143 || code === 124 || /terminated/i.test(stderr)) return 'timeout'
  return `${code} ${stderr.trim()}`
}

export const REFUSED = 'refused'

/** Waits until a URL gives `wanted` there: policies arrive within a second or so. */
export async function awaitFetch(namespace: string, app: string, url: string, wanted: string): Promise<void> {
  let seen = ''
  await until(
    `${namespace}/${app} to get "${wanted}" from ${url}`,
    async () => {
      seen = await fetchFrom(namespace, app, url)
      if (seen !== wanted) throw new Error(`It got "${seen}".`)
      return true
    },
    30,
  )
}

export function sidecarLog(namespace: string, app: string): Promise<string> {
  return kubectl('-n', namespace, 'logs', `deployment/${app}`, '-c', 'synguard-sidecar')
}
