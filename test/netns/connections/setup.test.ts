import { afterAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { ECHO_PORT, type LoadFigures } from '../../bench/load.ts'
import { addressOf } from '../../lab/objects.ts'
import { createRig, type Rig } from './rig.ts'

const CONNECTIONS = 10_000
const figures: string[] = []

function note(what: string, loads: Record<string, LoadFigures>, queuedPerConnection: number): void {
  for (const [parallel, load] of Object.entries(loads)) {
    const { perSecond, echoP50, stalls, failed } = load
    figures.push(
      `${what.padEnd(34)} ${parallel.padEnd(12)} ${String(perSecond).padStart(7)}/s p50 ${String(echoP50).padStart(8)} us stalls ${stalls} failed ${failed}`,
    )
  }
  if (queuedPerConnection > 0)
    figures.push(`${''.padEnd(34)} ${queuedPerConnection.toFixed(2)} queued packets a connection`)
}

afterAll(() => void process.stdout.write(`\n${figures.join('\n')}\n`))

async function loadBoth(rig: Rig, client: RunningPod, address: string, port: number) {
  return {
    'parallel 1': await rig.connect(client, address, port, CONNECTIONS, 1),
    'parallel 64': await rig.connect(client, address, port, CONNECTIONS, 64),
  }
}

const outcome = ({ succeeded, failed, unfinished, firstError }: LoadFigures) => ({
  succeeded,
  failed,
  unfinished,
  firstError,
})
const ALL_SUCCEEDED = { succeeded: CONNECTIONS, failed: 0, unfinished: 0, firstError: '' }

describe.each([
  ['1500', 1500],
  ['1280', 1280],
] as const)('10,000 connections over an MTU of %s', (_name, mtuBytes) => {
  let rig: Rig | undefined
  afterAll(async () => await rig?.stop())

  it('all succeed, alone and 64 at a time, over IPv4, IPv6 and a Service, with few packets queued', async () => {
    rig = await createRig({ mtuBytes })
    const run = rig.runPod
    const [client, server] = await Promise.all([run('guarded', 'client'), run('guarded', 'server')])
    const [plainClient, plainServer] = await Promise.all([run('plain', 'client'), run('plain', 'server')])
    await rig.serveLoad(server)
    await rig.serveLoad(plainServer)
    const service = await rig.lab.putService({
      metadata: { namespace: 'guarded', name: 'server' },
      spec: { selector: { app: 'server' }, ports: [{ port: 80, targetPort: ECHO_PORT }] },
    })
    note(`plain, MTU ${mtuBytes}`, await loadBoth(rig, plainClient, addressOf(plainServer), ECHO_PORT), 0)
    const paths: [string, string, number][] = [
      ['IPv4', addressOf(server), ECHO_PORT],
      ['IPv6', addressOf(server, 6), ECHO_PORT],
    ]
    if (mtuBytes === 1500) paths.push(['Service', service.spec?.clusterIP ?? '', 80])
    let before = await rig.queued(client, server)
    for (const [path, address, port] of paths) {
      const loads = await loadBoth(rig, client, address, port)
      const after = await rig.queued(client, server)
      const each = (after - before) / (2 * CONNECTIONS)
      before = after
      note(`guarded, ${path}, MTU ${mtuBytes}`, loads, each)
      expect(Object.values(loads).map(outcome)).toEqual([ALL_SUCCEEDED, ALL_SUCCEEDED])
      expect(each).toBeLessThanOrEqual(7)
    }
  }, 400_000)

  it('a bulk transfer queues the packets of its handshake and no other', async () => {
    if (!rig) throw new Error('the rig did not start')
    const at = (name: string) => rig?.lab.pods.get(name) as RunningPod
    const [client, server] = [at('guarded/client'), at('guarded/server')]
    const before = await rig.queued(client, server)
    const ratios: number[] = []
    for (let round = 0; round < 5; round++) {
      const plain = await rig.bulk(at('plain/client'), addressOf(at('plain/server')), 0.5)
      const guarded = await rig.bulk(client, addressOf(server), 0.5)
      ratios.push(guarded / plain)
    }
    const queued = (await rig.queued(client, server)) - before
    ratios.sort((a, b) => a - b)
    figures.push(
      `bulk, MTU ${mtuBytes}: guarded / plain ${ratios[2]?.toFixed(2)} (${ratios[0]?.toFixed(2)} to ${ratios[4]?.toFixed(2)}), ${queued} packets queued in 5 transfers`,
    )
    // 5 connections: six packets each, and the health probes of half a minute.
    expect(queued).toBeLessThan(150)
  }, 60_000)
})
