/**
 * Thousands of client Pods on one machine: they exist in the cluster, with addresses and tokens, but share one network
 * namespace and one process, which obtains each one's WIT from the issuer, from the Pod's own address, and speaks the
 * client half of the handshake for it with the product's own code. To a server's sidecar they are peers like all others.
 */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { V1Pod } from '@kubernetes/client-node'
import { TOKEN_AUDIENCE } from '../../../api/names.ts'
import { createChannel } from '../../../lab/channel.ts'
import { runCommand, runIpBatch } from '../../../lab/command.ts'
import { LAB_ISSUER } from '../../../lab/injection.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { CHECKOUT } from '../../../lab/sandbox.ts'
import { DEFAULT_INJECTION_SETTINGS } from '../../../webhook/admission/settings.ts'
import { ECHO_PORT } from '../load.ts'
import { CROWD_QUEUE, type CrowdAnswers, type CrowdPod, type CrowdRequest } from './crowd-protocol.ts'
import { addressOf, type Field } from './field.ts'
import { CALLERS, PLAIN } from './namespaces.ts'

/** Addresses of the crowd: none of the lab's own Pods comes that far. */
const NETWORK = '10.244.128.0/18'
/** Below the 400 verifications a second that a sidecar grants. */
const VISITS_PER_SECOND = 350
const TOKEN_SECONDS = 3_600

const addressAt = (index: number): string => `10.244.${128 + (index >> 8)}.${index & 255}`

export interface Crowd {
  /** Introduces so many more Pods to the server, one connection each. */
  introduce(count: number): Promise<void>
  stop(): void
}

/** One route in place of thousands of neighbours, whose table the kernel bounds for the whole machine. */
async function routeToCrowd(field: Field, host: RunningPod, server: RunningPod): Promise<void> {
  const route = `route add ${NETWORK} via ${addressOf(host)}`
  await runIpBatch(host.network.netns, [`route add local ${NETWORK} dev lo`])
  await runIpBatch(server.network.netns, [`${route} dev eth0`])
  await runIpBatch(field.lab.network.node, [`${route} dev cni0`])
  const rule = (chain: string, own: string, peer: string, flags: string): Promise<string> =>
    runCommand('ip', [
      ...[
        'netns',
        'exec',
        host.network.netns,
        'iptables',
        '-w',
        '-t',
        'mangle',
        '-A',
        chain,
        '-p',
        'tcp',
        own,
        NETWORK,
      ],
      ...[
        peer,
        addressOf(server),
        '--tcp-flags',
        'SYN,ACK',
        flags,
        '-j',
        'NFQUEUE',
        '--queue-num',
        String(CROWD_QUEUE),
      ],
    ])
  await rule('OUTPUT', '-s', '-d', 'SYN')
  await rule('INPUT', '-d', '-s', 'SYN,ACK')
}

function withAddress(template: V1Pod, index: number): V1Pod {
  const address = addressAt(index)
  return {
    ...template,
    metadata: { ...template.metadata, name: `crowd-${index}`, uid: randomUUID() },
    status: { phase: 'Running', podIP: address, podIPs: [{ ip: address }] },
  }
}

async function putPod(field: Field, pod: V1Pod): Promise<CrowdPod> {
  const { namespace = '', name = '', uid = '' } = pod.metadata ?? {}
  await field.lab.controlPlane.put('Pod', pod)
  const token = await field.lab.controlPlane.mintToken(namespace, name, TOKEN_AUDIENCE, TOKEN_SECONDS)
  return { namespace, name, uid, address: pod.status?.podIP ?? '', token }
}

export async function createCrowd(field: Field, server: RunningPod): Promise<Crowd> {
  const host = await field.run(PLAIN, 'crowd', 'crowd')
  await routeToCrowd(field, host, server)
  const template = await field.admit(CALLERS, 'crowd', 'client')
  const script = join(CHECKOUT, 'test', 'bench', 'growth', 'crowd-process.ts')
  const child = spawn('ip', ['netns', 'exec', host.network.netns, process.execPath, '--no-warnings', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  })
  const channel = createChannel<CrowdRequest, CrowdAnswers>(child, 'the crowd')
  let introduced = 0
  return {
    async introduce(count) {
      const pods: CrowdPod[] = []
      for (let i = 0; i < count; i++) pods.push(await putPod(field, withAddress(template, introduced + i)))
      const { address, port, name } = LAB_ISSUER
      const issuer = { address, port, name, ca: field.lab.controlPlane.caCertificatePem }
      await channel.ask({ do: 'obtain', pods, issuer, trustDomain: DEFAULT_INJECTION_SETTINGS.trustDomain })
      const { succeeded, firstError } = await channel.ask({
        do: 'visit',
        flows: field.flows,
        server: addressOf(server),
        port: ECHO_PORT,
        source: addressAt(introduced),
        count,
        perSecond: VISITS_PER_SECOND,
      })
      if (succeeded !== count) throw new Error(`${succeeded} of ${count} introductions succeeded: ${firstError}`)
      introduced += count
    },
    stop: () => void child.kill('SIGKILL'),
  }
}
