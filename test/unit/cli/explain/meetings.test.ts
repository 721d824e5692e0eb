import { describe, expect, it } from '@jest/globals'
import type { V1Pod } from '@kubernetes/client-node'
import { formatAnswer } from '../../../../cli/explain/format.ts'
import type { Verdict } from '../../../../cli/explain/verdict.ts'
import { guardedPod, plainPod } from '../../webhook/fixtures.ts'
import { MEETINGS } from './meetings.ts'
import {
  admit,
  answerTo,
  CLIENT,
  guarded,
  labelled,
  NODE,
  resetNames,
  running,
  type Stage,
  service,
  WEB,
} from './stage.ts'

/** `egress / ingress` of each way: the outcome, with the refusal's code. */
function outcomes(...parameters: Parameters<typeof answerTo>): string[] {
  const said = ({ outcome, refusal }: Verdict) => (refusal === undefined ? outcome : `${outcome} ${refusal}`)
  return answerTo(...parameters).ways.map(({ egress, ingress }) => `${said(egress)} / ${said(ingress)}`)
}

describe('a meeting', () => {
  it.each(MEETINGS)('%s', (_, expected, ...parameters) => {
    expect(outcomes(...parameters).sort()).toEqual(expected)
  })

  it('lets the own node through to the ports of probes', () => {
    const probed = plainPod({ name: 'web', addresses: ['10.244.0.3'] })
    const [container] = probed.spec.containers
    if (container !== undefined) container.readinessProbe = { httpGet: { port: 8080 } }
    const pod = guardedWith(probed)
    const [way] = answerTo({ pods: [pod], policies: [admit('web')] }, NODE, 'shop/web', '8080').ways
    expect([way?.allowed, way?.ingress.reason]).toEqual([
      true,
      "ingress allowed: the Pod's own node may reach the ports of its probes",
    ])
  })

  it('is allowed only where every endpoint is, and has one', () => {
    expect(answerTo({ services: [service('gone')] }, 'shop/client', 'shop/gone', '80').allowed).toBe(false)
    expect(answerTo({}, 'shop/client', 'shop/web', '80').allowed).toBe(true)
  })
})

function guardedWith(pod: ReturnType<typeof plainPod>): V1Pod {
  const { spec } = guardedPod({ name: 'web' })
  const sidecar = spec?.initContainers?.map((container) =>
    container.name === 'synguard-sidecar'
      ? { ...container, env: [...(container.env ?? []), { name: 'SYNGUARD_PROBE_PORTS', value: 'TCP/8080' }] }
      : container,
  )
  return running({ ...pod, spec: { ...pod.spec, initContainers: sidecar ?? [] } })
}

describe('the mode of an end', () => {
  const denied = { policies: [admit('web')] }
  const ingress = (stage: Stage) => answerTo(stage, 'shop/client', 'shop/web', '8080').ways[0]?.ingress

  it('is the stricter of Pod and namespace, and lets pass what it only counts', () => {
    const annotations = { 'synguard.io/mode': 'audit' }
    expect(ingress({ ...denied, annotations })).toMatchObject({
      outcome: 'tolerated',
      guard: { mode: 'audit', modeBy: 'synguard.io/mode of its namespace' },
    })
    const pods = [CLIENT, guarded('web', '10.244.0.3', { annotations: { 'synguard.io/mode': 'enforce' } })]
    expect(ingress({ ...denied, annotations, pods })).toMatchObject({
      outcome: 'denied',
      guard: { mode: 'enforce', modeBy: 'synguard.io/mode of its own' },
    })
  })

  it('is what break-glass says, with its reason, once the webhook has put it where sidecars look', () => {
    const annotations = { 'synguard.io/break-glass': 'off: INC-7' }
    const modes = new Map([['shop', { mode: 'enforce', breakGlass: 'off' }]] as const)
    const off = { mode: 'off', modeBy: 'the glass is broken: INC-7' }
    expect(ingress({ ...denied, annotations, modes })).toMatchObject({ outcome: 'tolerated', guard: off })
    expect(ingress({ ...denied, annotations })).toMatchObject({ guard: off })
    const before = new Map([['shop', { mode: 'enforce' }]] as const)
    expect(ingress({ ...denied, annotations, modes: before })).toMatchObject({ guard: { mode: 'enforce' } })
  })
})

describe('what would allow it', () => {
  it('is a policy that does, for every end that policies deny', () => {
    for (const [name, , stage, from, to, port, protocol] of MEETINGS) {
      const before = answerTo(stage, from, to, port, protocol)
      const suggested = before.ways.flatMap(({ egress, ingress }) =>
        [egress, ingress].flatMap((one) => one.suggestion ?? []),
      )
      if (suggested.length === 0) continue
      const policies = [
        ...(stage.policies ?? []),
        ...new Map(suggested.map((one) => [one.metadata.name, one])).values(),
      ]
      const after = answerTo({ ...stage, policies }, from, to, port, protocol)
      expect([name, after.ways.flatMap(({ egress, ingress }) => [egress.refusal, ingress.refusal])]).toEqual([
        name,
        after.ways.flatMap(() => [undefined, undefined]),
      ])
    }
  })

  it('is told for what no policy can allow', () => {
    const voids = new Map([['uid-client', { revoked: 1 }]])
    const [way] = answerTo({ voids }, 'shop/client', 'shop/web', '8080').ways
    expect([way?.egress.wouldAllow, way?.ingress.wouldAllow]).toEqual([
      ['synguard revoke --undo shop/client'],
      ['synguard revoke --undo shop/client'],
    ])
  })
})

describe('the text', () => {
  it('has both ends, every policy with what it asked for, and a policy to try', () => {
    resetNames()
    const pods = [CLIENT, { ...WEB, status: { ...WEB.status, initContainerStatuses: [] } } as V1Pod]
    const stage = { pods, services: [service('web')], policies: [admit('web', labelled('other'))] }
    expect(formatAnswer(answerTo(stage, 'shop/client', 'shop/svc/web', '80'))).toBe(
      `
shop/client to shop/web, TCP/80: denied

10.244.0.2 to 10.96.0.10:80, through Service shop/web, to shop/web at 10.244.0.3:8080
  source shop/client: guarded, enforce
    egress allowed: no policy isolates the Pod
    it sees shop/web, by its identity
    shop/p1: does not apply, podSelector asks for app=web
  destination shop/web: guarded, enforce, its sidecar is not ready, so nothing new passes
    ingress denied: isolated by shop/p1, no rule allows it [policy]
    it sees shop/client, by its identity
    shop/p1: isolates, podSelector app=web selects the Pod
      ingress[0] does not match
        no  ingress[0].from[0]: podSelector asks for app=other; shop/client has app=client
        yes ingress[0].ports: absent: all ports
    What would allow it:
      shop/p1 ingress[0].from[0]: podSelector asks for app=other; shop/client has app=client
    Or this policy beside the others:
      apiVersion: networking.k8s.io/v1
      kind: NetworkPolicy
      metadata:
        namespace: shop
        name: p1-ingress-8080
      spec:
        podSelector:
          matchLabels:
            app: web
        policyTypes:
          - Ingress
        ingress:
          - from:
              - namespaceSelector:
                  matchLabels:
                    kubernetes.io/metadata.name: shop
                podSelector:
                  matchLabels:
                    app: client
            ports:
              - protocol: TCP
                port: 8080`.slice(1),
    )
  })

  it('tells endpoints that are alike once', () => {
    const pods = [
      CLIENT,
      ...[3, 4, 5].map((host) => guarded(`web-${host}`, `10.244.0.${host}`, { labels: { app: 'web' } })),
    ]
    const text = formatAnswer(answerTo({ pods, services: [service('web')] }, 'shop/client', 'shop/web', '80'))
    expect(text.split('\n').slice(2, 5)).toEqual([
      '10.244.0.2 to 10.96.0.10:80, through Service shop/web, to shop/web-3 at 10.244.0.3:8080',
      'the same for shop/web-4 at 10.244.0.4:8080, shop/web-5 at 10.244.0.5:8080',
      '  source shop/client: guarded, enforce',
    ])
  })
})
