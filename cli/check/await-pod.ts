import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node'
import { pause } from '../../kubernetes/backoff.ts'
import type { ApiClient } from '../../kubernetes/client.ts'
import type { RunPod } from './facts.ts'

const POLL_MS = 400
/** With these the kubelet tries again, but nothing will have changed. */
const HOPELESS = [
  'ErrImagePull',
  'ImagePullBackOff',
  'ErrImageNeverPull',
  'InvalidImageName',
  'CreateContainerConfigError',
  'CreateContainerError',
  'RunContainerError',
]

export interface Awaited {
  readonly pod: V1Pod
  readonly run: RunPod
}

/**
 * Polls a Pod until `reached` says yes (where nothing else is said until it succeeded), until it failed or something about it
 * that will not change, or until the time is over.
 */
export async function awaitPod(
  client: ApiClient,
  path: string,
  limitMs: number,
  reached: (pod: V1Pod) => boolean = ({ status }) => status?.phase === 'Succeeded',
): Promise<Awaited> {
  const startedAt = performance.now()
  const signal = AbortSignal.timeout(limitMs)
  for (;;) {
    const pod = await client.send<V1Pod>({ method: 'GET', path })
    const seconds = (performance.now() - startedAt) / 1_000
    if (reached(pod)) return { pod, run: { kind: 'succeeded', seconds } }
    const failure = findFailure(pod)
    if (failure !== undefined) return { pod, run: { kind: 'failed', reason: failure } }
    if (signal.aborted) {
      return { pod, run: { kind: 'failed', reason: `not done within ${limitMs / 1_000} s${describeState(pod)}` } }
    }
    await pause(POLL_MS, signal)
  }
}

const statusesOf = ({ status }: V1Pod): V1ContainerStatus[] => [
  ...(status?.initContainerStatuses ?? []),
  ...(status?.containerStatuses ?? []),
]

function findFailure(pod: V1Pod): string | undefined {
  for (const { name, state, image } of statusesOf(pod)) {
    const { reason = '', message = '' } = state?.waiting ?? {}
    if (HOPELESS.includes(reason)) return `container ${name} (${image}): ${reason} ${message}`.trim()
  }
  if (pod.status?.phase !== 'Failed') return undefined
  for (const { name, state } of statusesOf(pod)) {
    const { exitCode = 0, reason = '', message = '' } = state?.terminated ?? {}
    if (exitCode !== 0) return `container ${name} ended with ${exitCode}: ${readMessage(message) || reason}`
  }
  return `the Pod failed: ${pod.status.reason ?? ''} ${pod.status.message ?? ''}`.trim()
}

/** Our own last line of JSON, or what was said otherwise. */
function readMessage(text: string): string {
  const line = text.trim().split('\n').at(-1) ?? ''
  try {
    const { message = '', fix = '' } = JSON.parse(line) as { message?: string; fix?: string }
    return [message, fix].filter((part) => part !== '').join(' ')
  } catch {
    return line
  }
}

/** Where it stands, of what can be seen without a right to read events. */
function describeState(pod: V1Pod): string {
  const scheduled = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled')
  if (scheduled?.status === 'False') return `: ${scheduled.message}`
  for (const { name, state, started, restartCount } of statusesOf(pod)) {
    if (state?.waiting !== undefined) return `: container ${name} waits, ${state.waiting.reason ?? 'for nothing said'}`
    if (state?.running !== undefined && started !== true) {
      return `: container ${name} runs, but its startup probe fails${restartCount > 0 ? `, ${restartCount} restarts` : ''}`
    }
  }
  return `: the Pod is ${pod.status?.phase}`
}
