/**
 * What a workload must not be able to do to its Pod's rules, its sidecar's queue and its sidecar's process. Each is done
 * first by somebody who may: root of the machine. The lab's containers share one process table, a cluster's do not: so
 * what is held here holds also where `shareProcessNamespace` was admitted.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { RunningPod } from '../../../lab/pod.ts'
import { addressOf } from '../../lab/objects.ts'
import { createField, type Field, putPolicyFor } from './field.ts'

const SIDECAR_UID = '15900'

let field: Field
let pod: RunningPod

beforeAll(async () => {
  field = await createField()
  pod = await field.runPod('guarded', 'app')
}, 60_000)
afterAll(async () => await field?.stop())

/** As the container's root, as the sidecar's user, and as root of a user namespace of its own. */
const WAYS = [[], [SIDECAR_UID], ['userns']] as const

describe('the network of the Pod', () => {
  it.each([
    ['packet-socket', 'EPERM'],
    ['raw-socket', 'EPERM'],
    ['raw-socket-6', 'EPERM'],
    ['xdp-socket', 'EPERM'],
    ['mark', 'EPERM'],
    ['transparent', 'EPERM'],
    ['repair', 'EPERM'],
    ['bind-queue', 'EPERM'],
    ['read-conntrack', 'EPERM'],
    ['flush-conntrack', 'EPERM'],
    ['ask-nftables', 'EPERM'],
    ['add-route', 'EPERM'],
    ['add-address', 'EPERM'],
  ])('%s is not for a workload', async (name, error) => {
    for (const way of WAYS) expect([way, await field.inContainer(pod, 'power', name, '', ...way)]).toEqual([way, error])
    expect(await field.inNamespace(pod.network.netns, 'power', name)).toBe('ok')
  })
})

describe("the sidecar's process", () => {
  const sidecarPid = () => String(pod.containers.get('synguard-sidecar')?.current().pid)

  it.each([
    ['trace', 'EPERM'],
    ['memory', 'EACCES'],
    ['memory-map', 'EACCES'],
    ['environment', 'EACCES'],
    ['network-of', 'EACCES'],
    ['credentials-of', 'EACCES'],
    ['take-descriptor', 'EPERM'],
  ])('%s: closed to a workload', async (name, error) => {
    for (const way of WAYS) {
      expect([way, await field.inContainer(pod, 'power', name, sidecarPid(), ...way)]).toEqual([way, error])
    }
    expect(await field.inNamespace(pod.network.netns, 'power', name, sidecarPid())).toBe('ok')
  })

  it('its memory cannot be read by another process either', async () => {
    for (const way of WAYS) {
      expect(await field.inContainer(pod, 'power', 'read-memory', sidecarPid(), ...way)).toBe('EPERM')
    }
    // Whether that address is mapped is another matter.
    expect(await field.inNamespace(pod.network.netns, 'power', 'read-memory', sidecarPid())).not.toBe('EPERM')
  })

  it('its volumes are in no container of the workload', async () => {
    for (const path of ['/var/run/synguard', '/run/synguard']) {
      expect(await field.inContainer(pod, 'power', 'list', path)).toBe('ENOENT')
    }
    expect(await field.inContainer(pod, 'power', 'list', '/run')).toBe('ok')
  })
})

describe("a workload that takes the sidecar's port while the sidecar is dead", () => {
  it('stays alone with it: nothing is opened, and the sidecar says why it does not start', async () => {
    putPolicyFor(field.lab, 'squatter', {
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'app' } } }] }],
    })
    const squatter = await field.runPod('guarded', 'squatter')
    const stranger = await field.runPod('plain', 'stranger')
    const sidecar = squatter.containers.get('synguard-sidecar')
    const serve = async (port: number) =>
      await squatter.agent.ask({ do: 'serve', ports: [{ protocol: 'TCP', port }], name: 'squatter' })
    await serve(9_000)
    let taken = false
    for (let tries = 0; tries < 20 && !taken; tries++) {
      sidecar?.current().kill('SIGKILL')
      for (const end = Date.now() + 500; Date.now() < end && !taken; ) {
        taken = await serve(15_900).then(
          () => true,
          () => false,
        )
      }
    }
    expect(taken).toBe(true)
    const restarts = sidecar?.restarts() ?? 0
    for (let waited = 0; waited < 100 && (sidecar?.restarts() ?? 0) < restarts + 2; waited++) {
      await new Promise((later) => setTimeout(later, 100))
    }
    for (const port of [15_900, 9_000]) {
      const target = { protocol: 'TCP', address: addressOf(squatter), port } as const
      // From its own Pod: there it listens.
      const inside = { ...target, address: '127.0.0.1' }
      expect(await squatter.agent.ask({ do: 'reach', target: inside, timeoutMs: 2_000 })).toMatchObject({
        answer: 'squatter',
      })
      for (const peer of [stranger, pod]) {
        expect(await peer.agent.ask({ do: 'reach', target, timeoutMs: 2_000 })).toMatchObject({ outcome: 'timeout' })
      }
    }
    expect(squatter.logs.get('synguard-sidecar')?.text()).toMatch(/EADDRINUSE.*15900.*cannot start/)
  }, 60_000)
})
