import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { ENVIRONMENT } from '../../../api/environment.ts'
import { CONTAINER_INIT, CONTAINER_SIDECAR, SIDECAR_UID } from '../../../api/names.ts'
import { listAdmissionReasons } from '../../../webhook/admission/errors.ts'
import { inject } from '../../../webhook/admission/inject.ts'
import type { NamespaceFacts } from '../../../webhook/admission/namespace.ts'
import { createPatch } from '../../../webhook/admission/patch.ts'
import { isGuarded, parsePod } from '../../../webhook/admission/pod.ts'
import { findDegradations } from '../../../webhook/admission/powers.ts'
import { parseInjectionSettings } from '../../../webhook/admission/settings.ts'
import { applyPatch } from './json-patch.ts'
import { makePod, SETTINGS, SHOP } from './subjects.ts'

function outcome(pod: unknown, namespace: NamespaceFacts = SHOP, settings = SETTINGS) {
  return inject(parsePod(pod), namespace, settings)
}

/** The injected Pod's spec; fails the test where there is none. */
function specOf(pod: unknown, namespace: NamespaceFacts = SHOP, settings = SETTINGS) {
  const result = outcome(pod, namespace, settings)
  if (result.kind !== 'injected') throw new Error(`${result.kind}: ${result.reason}`)
  return result.pod.spec
}

function sidecarOf(pod: unknown, namespace: NamespaceFacts = SHOP, settings = SETTINGS) {
  return specOf(pod, namespace, settings).initContainers?.[1]
}

function environmentOf(pod: unknown, namespace: NamespaceFacts = SHOP, settings = SETTINGS) {
  return Object.fromEntries((sidecarOf(pod, namespace, settings)?.env ?? []).map(({ name, value }) => [name, value]))
}

function refusalsOf(pod: unknown, namespace: NamespaceFacts = SHOP): string[] {
  const result = outcome(pod, namespace)
  return result.kind === 'refused' ? result.causes.map(({ code, field }) => `${code} ${field}`) : []
}

describe('the two containers', () => {
  it('carry every environment variable of the contract, in both', () => {
    const [init, sidecar] = specOf(makePod()).initContainers ?? []
    expect(init?.env?.map(({ name }) => name).sort()).toEqual(Object.values(ENVIRONMENT).sort())
    expect(sidecar?.env).toEqual(init?.env)
  })

  it('only the sidecar sees the credentials', () => {
    const spec = specOf(makePod())
    const mounting = [...(spec.initContainers ?? []), ...spec.containers]
      .filter(({ volumeMounts }) => volumeMounts?.some(({ name }) => name === 'synguard-credentials'))
      .map(({ name }) => name)
    expect(mounting).toEqual([CONTAINER_SIDECAR])
  })

  it('mount a directory of policies from the node read-only where that is the source', () => {
    const settings = parseInjectionSettings({ ...SETTINGS, policySource: { kind: 'directory', hostPath: '/srv/p' } })
    expect(environmentOf(makePod(), SHOP, settings).SYNGUARD_POLICY_SOURCE).toBe('directory:/var/run/synguard/policies')
    expect(specOf(makePod(), SHOP, settings).volumes?.at(-1)).toEqual({
      name: 'synguard-policies',
      hostPath: { path: '/srv/p', type: 'Directory' },
    })
    expect(sidecarOf(makePod(), SHOP, settings)?.volumeMounts?.at(-1)).toEqual({
      mountPath: '/var/run/synguard/policies',
      name: 'synguard-policies',
      readOnly: true,
    })
  })

  it('get a CPU limit where a quota of the namespace asks for one', () => {
    expect(sidecarOf(makePod(), { ...SHOP, cpuLimitRequired: true })?.resources).toEqual({
      limits: { cpu: '250m', memory: '192Mi' },
      requests: { cpu: '25m', memory: '64Mi' },
    })
  })

  it('are recognised by the spec alone', () => {
    const spec = specOf(makePod())
    const [init, sidecar] = spec.initContainers ?? []
    expect(isGuarded(spec)).toBe(true)
    expect(isGuarded({ ...spec, hostNetwork: true })).toBe(false)
    expect(isGuarded({ containers: spec.containers })).toBe(false)
    expect(isGuarded({ containers: [], initContainers: sidecar ? [sidecar] : [] })).toBe(false)
    expect(isGuarded({ containers: [], initContainers: init ? [init] : [] })).toBe(false)
    expect(isGuarded({ containers: [], initContainers: [{ name: CONTAINER_INIT }, { name: CONTAINER_SIDECAR }] })).toBe(
      false,
    )
    expect(isGuarded({ containers: init && sidecar ? [init, sidecar] : [] })).toBe(false)
  })
})

describe('annotations', () => {
  const mode = (pod?: string, namespace?: string, fallback = 'enforce') => {
    const settings = parseInjectionSettings({ ...SETTINGS, defaults: { mode: fallback } })
    const facts = { ...SHOP, annotations: namespace ? { 'synguard.io/mode': namespace } : {} }
    const metadata = pod ? { annotations: { 'synguard.io/mode': pod } } : {}
    return environmentOf(makePod({}, {}, metadata), facts, settings).SYNGUARD_MODE
  }

  it('of mode: the stricter of Pod and namespace holds', () => {
    const modes = ['enforce', 'audit', 'off']
    for (const [i, pod] of modes.entries()) {
      for (const [j, namespace] of modes.entries()) expect(mode(pod, namespace)).toBe(modes[Math.min(i, j)])
    }
  })

  it('a Pod cannot lift what the namespace leaves at the default, and tightens a lax default', () => {
    expect([mode(), mode('off'), mode(undefined, 'audit'), mode(undefined, undefined, 'off')]).toEqual([
      'enforce',
      'enforce',
      'audit',
      'off',
    ])
    expect(mode('audit', undefined, 'off')).toBe('audit')
  })

  it('of the Pod decide how a refusal looks, before the namespace', () => {
    const facts = { ...SHOP, annotations: { 'synguard.io/refusal': 'drop' } }
    const own = makePod({}, {}, { annotations: { 'synguard.io/refusal': 'reset' } })
    expect(environmentOf(makePod(), facts).SYNGUARD_REFUSAL).toBe('drop')
    expect(environmentOf(own, facts).SYNGUARD_REFUSAL).toBe('reset')
  })

  it('a misspelt allow-opt-out of the namespace refuses rather than passing for a no', () => {
    const facts = { ...SHOP, annotations: { 'synguard.io/allow-opt-out': 'yes' } }
    expect(refusalsOf(makePod(), facts)).toEqual([
      'bad-annotation namespace metadata.annotations[synguard.io/allow-opt-out]',
    ])
  })
})

describe('powers of the workload', () => {
  const adding = (add: string[], annotations: Record<string, string> = {}) =>
    makePod({}, { securityContext: { capabilities: { add } } }, { annotations })
  const AT = 'spec.containers[0].securityContext.capabilities.add'

  it.each(['ALL', 'NET_ADMIN', 'CAP_NET_ADMIN', 'net_admin', 'SYS_ADMIN', 'SYS_PTRACE', 'SYS_MODULE', 'BPF'])(
    '%s is refused without its annotation, and makes the Pod degraded with it',
    (capability) => {
      expect(refusalsOf(adding([capability]))).toEqual([`dangerous-capability ${AT}`])
      const admitted = outcome(adding([capability], { 'synguard.io/allow-privileged': 'true' }))
      expect(admitted.kind === 'injected' && admitted.degraded).toEqual([
        `web: ${capability.toUpperCase().replace('CAP_', '')}`,
      ])
    },
  )

  it('adding NET_RAW counts as keeping it, also beside drop ALL', () => {
    expect(refusalsOf(adding(['NET_RAW']))).toEqual([`net-raw-added ${AT}`])
    const both = makePod({}, { securityContext: { capabilities: { add: ['NET_RAW'], drop: ['ALL'] } } })
    expect(refusalsOf(both)).toEqual([`net-raw-added ${AT}`])
    expect(refusalsOf(adding(['NET_RAW'], { 'synguard.io/allow-privileged': 'true' }))).toEqual([`net-raw-added ${AT}`])
  })

  it('keep-net-raw degrades only a Pod that has it', () => {
    const annotations = { 'synguard.io/keep-net-raw': 'true' }
    const dropped = outcome(makePod({}, { securityContext: { capabilities: { drop: ['ALL'] } } }, { annotations }))
    const kept = outcome(makePod({}, {}, { annotations }))
    expect(dropped.kind === 'injected' && dropped.degraded).toEqual([])
    expect(kept.kind === 'injected' && kept.degraded).toEqual(['web: NET_RAW'])
  })

  it.each([
    [['ALL'], ['ALL']],
    [['net_raw'], ['net_raw']],
    [['CAP_NET_RAW'], ['CAP_NET_RAW']],
    [['KILL'], ['KILL', 'NET_RAW']],
    [undefined, ['NET_RAW']],
  ])('drop %j becomes %j', (drop, expected) => {
    const pod = makePod({}, { securityContext: { readOnlyRootFilesystem: true, capabilities: drop ? { drop } : {} } })
    expect(specOf(pod).containers[0]?.securityContext).toEqual({
      readOnlyRootFilesystem: true,
      capabilities: { drop: expected },
    })
  })

  it('are found in the spec alone, NET_RAW by default included', () => {
    expect(findDegradations(parsePod(makePod({ hostPID: true })).spec)).toEqual(['pod: hostPID', 'web: NET_RAW'])
    expect(findDegradations(specOf(makePod()))).toEqual([])
  })
})

describe("what is the sidecar's", () => {
  it.each(['volumeMounts', 'volumeDevices'])('its volumes are in nobody else’s %s', (kind) => {
    for (const name of ['synguard-credentials', 'synguard-state', 'synguard-policies']) {
      expect(refusalsOf(makePod({}, { [kind]: [{ name, mountPath: '/x' }] }))).toEqual([
        `reserved-volume spec.containers[0].${kind}[0]`,
      ])
    }
  })

  it('its user id is refused in a container, and at Pod level for a container that has none of its own', () => {
    const user = { runAsUser: SIDECAR_UID }
    expect(refusalsOf(makePod({}, { securityContext: user }))).toEqual([
      'reserved-user spec.containers[0].securityContext.runAsUser',
    ])
    expect(refusalsOf(makePod({ securityContext: user }))).toEqual(['reserved-user spec.securityContext.runAsUser'])
    expect(refusalsOf(makePod({ securityContext: user }, { securityContext: { runAsUser: 1000 } }))).toEqual([])
  })

  it('its health port is free for UDP', () => {
    expect(refusalsOf(makePod({}, { ports: [{ containerPort: 15900, protocol: 'UDP' }] }))).toEqual([])
    expect(refusalsOf(makePod({}, { ports: [{ containerPort: 15900 }] }))).toEqual([
      'reserved-port spec.containers[0].ports[0].containerPort',
    ])
  })
})

describe('meshes', () => {
  const labelled = (key: string, value: string) => makePod({}, {}, { labels: { [key]: value } })
  const annotated = (key: string, value: string) => makePod({}, {}, { annotations: { [key]: value } })

  it.each(['istio-proxy', 'istio-init', 'linkerd-proxy', 'linkerd-init'])('%s as a container is refused', (name) => {
    expect(refusalsOf(makePod({ initContainers: [{ name }] }))).toEqual(['mesh-sidecar spec.initContainers[0]'])
    expect(refusalsOf(makePod({}, { name }))).toEqual(['mesh-sidecar spec.containers[0]'])
  })

  it('a request for injection is refused, a refusal of it is not', () => {
    expect(refusalsOf(labelled('sidecar.istio.io/inject', 'true'))).toEqual([
      'mesh-sidecar metadata.labels[sidecar.istio.io/inject]',
    ])
    expect(refusalsOf(annotated('sidecar.istio.io/inject', 'false'))).toEqual([])
    expect(refusalsOf(annotated('linkerd.io/inject', 'ingress'))).toEqual([
      'mesh-sidecar metadata.annotations[linkerd.io/inject]',
    ])
    expect(refusalsOf(annotated('sidecar.istio.io/proxyCPU', '100m'))).toEqual([])
  })

  it("a namespace's request counts unless the Pod says otherwise", () => {
    const meshed = { ...SHOP, annotations: { 'linkerd.io/inject': 'enabled' } }
    expect(refusalsOf(makePod(), meshed)).toEqual(['mesh-sidecar namespace metadata.annotations[linkerd.io/inject]'])
    expect(refusalsOf(annotated('linkerd.io/inject', 'disabled'), meshed)).toEqual([])
  })
})

describe('selection', () => {
  it('goes by the configured label, with or without a value', () => {
    const anyValue = parseInjectionSettings({ ...SETTINGS, namespaceLabel: { key: 'e2e-run' } })
    const suite: NamespaceFacts = { name: 'n', labels: { 'e2e-run': '1' }, annotations: {} }
    expect([outcome(makePod(), suite).kind, outcome(makePod(), suite, anyValue).kind]).toEqual(['skipped', 'injected'])
    expect(outcome(makePod(), SHOP, anyValue).kind).toBe('skipped')
  })

  it('leaves a Pod of another namespace exactly as it came', () => {
    const pod = makePod({ initContainers: [{ name: CONTAINER_SIDECAR }] })
    const result = outcome(pod, { ...SHOP, labels: {} })
    expect(result.kind === 'skipped' && result.pod).toEqual(pod)
  })

  it('lists every reason that it may give, each once', () => {
    const codes = listAdmissionReasons().map(({ code }) => code)
    expect(new Set(codes).size).toBe(codes.length)
    expect(codes).toEqual(expect.arrayContaining(['reserved-volume', 'mesh-sidecar', 'host-network']))
  })
})

describe('any Pod', () => {
  const port = fc.record({ name: fc.constantFrom('a', 'b'), containerPort: fc.integer({ min: 1, max: 65535 }) })
  const capability = fc.constantFrom('NET_RAW', 'ALL', 'KILL', 'NET_BIND_SERVICE', 'CHOWN')
  const amount = fc.constantFrom('1', '1000m', '64Mi')
  const amounts = fc.record({ cpu: amount, memory: amount }, { requiredKeys: [] })
  const container = fc.record(
    {
      name: fc.constantFrom('a', 'b', 'c', CONTAINER_INIT, CONTAINER_SIDECAR),
      image: fc.constant('i'),
      restartPolicy: fc.constant('Always'),
      ports: fc.array(port, { maxLength: 2 }),
      readinessProbe: fc.record({ httpGet: fc.record({ port: fc.constantFrom<number | string>('a', 80) }) }),
      resources: fc.record({ limits: amounts, requests: amounts }, { requiredKeys: [] }),
      securityContext: fc.record(
        {
          runAsUser: fc.constantFrom(0, 1000),
          capabilities: fc.record(
            { add: fc.subarray(['CHOWN', 'KILL']), drop: fc.array(capability, { maxLength: 2 }) },
            { requiredKeys: [] },
          ),
        },
        { requiredKeys: [] },
      ),
    },
    { requiredKeys: ['name'] },
  )
  const containers = fc.uniqueArray(container, { selector: ({ name }) => name, maxLength: 4 })
  const volume = fc.record({ name: fc.constantFrom('v', 'w', 'synguard-state', 'synguard-credentials') })
  const pod = fc.record({
    metadata: fc.record(
      {
        name: fc.constant('p'),
        labels: fc.record({ 'synguard.io/inject': fc.constantFrom('disabled', 'enabled', 'x') }),
        annotations: fc.record(
          {
            'synguard.io/mode': fc.constantFrom('audit', 'off'),
            'synguard.io/keep-net-raw': fc.constant('true'),
            'synguard.io/status': fc.string(),
          },
          { requiredKeys: [] },
        ),
      },
      { requiredKeys: [] },
    ),
    spec: fc.record(
      {
        containers,
        initContainers: containers,
        volumes: fc.uniqueArray(volume, { selector: ({ name }) => name }),
        hostNetwork: fc.boolean(),
      },
      { requiredKeys: ['containers'] },
    ),
  })
  const namespace = fc.record({
    name: fc.constant('n'),
    labels: fc.constant({ 'synguard.io/inject': 'enabled' }),
    annotations: fc.record({ 'synguard.io/allow-opt-out': fc.constantFrom('true', 'false') }, { requiredKeys: [] }),
    cpuLimitRequired: fc.boolean(),
  })

  it('is injected once and for all: again is the same, its patch empty, its input untouched', () => {
    fc.assert(
      fc.property(pod, namespace, (generated, facts) => {
        const before = parsePod(JSON.parse(JSON.stringify(generated)))
        const copy = structuredClone(before)
        const first = inject(before, facts, SETTINGS)
        expect(before).toEqual(copy)
        if (first.kind === 'refused') return
        expect(applyPatch(before, createPatch(before, first.pod))).toEqual(first.pod)
        const second = inject(first.pod, facts, SETTINGS)
        expect(second).toEqual(first)
        expect(createPatch(first.pod, second.kind === 'refused' ? {} : second.pod)).toEqual([])
      }),
      { numRuns: 300 },
    )
  })

  it('has our two containers first and once if injected, and none of our names if skipped', () => {
    fc.assert(
      fc.property(pod, namespace, (generated, facts) => {
        const result = inject(parsePod(JSON.parse(JSON.stringify(generated))), facts, SETTINGS)
        if (result.kind === 'refused') return
        const { initContainers = [], containers: apps } = result.pod.spec
        const ours = [...initContainers, ...apps].flatMap(({ name }, index) =>
          name === CONTAINER_INIT || name === CONTAINER_SIDECAR ? [`${index} ${name}`] : [],
        )
        expect(ours).toEqual(result.kind === 'injected' ? [`0 ${CONTAINER_INIT}`, `1 ${CONTAINER_SIDECAR}`] : [])
        expect(isGuarded(result.pod.spec)).toBe(result.kind === 'injected')
      }),
      { numRuns: 300 },
    )
  })
})
