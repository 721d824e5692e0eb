import type { RunningPod } from '../../lab/pod.ts'
import type { Variant } from './field.ts'

/** Starts the pair of HAProxy sidecars; what of the variant differs from a plain pair. */
export async function startMutualTls(
  client: RunningPod,
  server: RunningPod,
  folder: string,
): Promise<Pick<Variant, 'target' | 'sidecars' | 'share'>> {
  throw new Error(`not yet: ${client.network.netns} ${server.network.netns} ${folder}`)
}
