import { describe, expect, it } from '@jest/globals'
import fc from 'fast-check'
import { inject } from '../../../webhook/admission/inject.ts'
import { mutate } from '../../../webhook/admission/mutate.ts'
import type { PatchOperation } from '../../../webhook/admission/patch.ts'
import { parsePod } from '../../../webhook/admission/pod.ts'
import type { AdmissionReview } from '../../../webhook/admission/review.ts'
import { applyPatch } from './json-patch.ts'
import { makePod, SETTINGS, SHOP } from './subjects.ts'

const lookup = (name: string) => (name === 'shop' ? SHOP : undefined)

function makeReview(object: unknown, request: object = {}) {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace: 'shop',
      object,
      oldObject: null,
      dryRun: false,
      ...request,
    },
  }
}

function ephemeralReview(added: object, metadata: object = {}) {
  const result = inject(parsePod(makePod({}, {}, metadata)), SHOP, SETTINGS)
  if (result.kind !== 'injected') throw new Error(result.reason)
  const old = result.pod
  const before = { ...old, spec: { ...old.spec, ephemeralContainers: [{ name: 'earlier' }] } }
  const object = { ...old, spec: { ...old.spec, ephemeralContainers: [{ name: 'earlier' }, { name: 'd', ...added }] } }
  return makeReview(object, { subResource: 'ephemeralcontainers', operation: 'UPDATE', oldObject: before })
}

function patchOf({ response }: AdmissionReview): PatchOperation[] {
  return response.patch === undefined ? [] : JSON.parse(Buffer.from(response.patch, 'base64').toString())
}

describe('mutate', () => {
  it('answers a new Pod without a name by a patch that injects it', async () => {
    const pod = makePod({}, {}, { name: undefined, generateName: 'web-' })
    const review = await mutate(makeReview(pod), lookup, SETTINGS)
    const injected = inject(parsePod(pod), SHOP, SETTINGS)
    expect(review).toEqual({
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: { uid: 'u-1', allowed: true, patchType: 'JSONPatch', patch: expect.any(String) },
    })
    expect(applyPatch(JSON.parse(JSON.stringify(pod)), patchOf(review))).toEqual(
      JSON.parse(JSON.stringify(injected.kind === 'injected' && injected.pod)),
    )
  })

  it('sends no patch for a Pod that is injected already, and the same for a dry run', async () => {
    const pod = inject(parsePod(makePod()), SHOP, SETTINGS)
    const object = pod.kind === 'injected' && pod.pod
    const expected = {
      apiVersion: 'admission.k8s.io/v1',
      kind: 'AdmissionReview',
      response: { uid: 'u-1', allowed: true },
    }
    expect(await mutate(makeReview(object), lookup, SETTINGS)).toEqual(expected)
    expect(await mutate(makeReview(object, { dryRun: true }), async () => SHOP, SETTINGS)).toEqual(expected)
  })

  it('refuses with 403, the code in front, and every cause with its field', async () => {
    const review = await mutate(makeReview(makePod({ hostPID: true })), lookup, SETTINGS)
    const message = `spec.hostPID shares the node's processes: remove it, or annotate the Pod with synguard.io/allow-privileged: "true"`
    expect(review.response).toEqual({
      uid: 'u-1',
      allowed: false,
      status: {
        code: 403,
        reason: 'Forbidden',
        message: `host-pid: ${message}`,
        details: { causes: [{ reason: 'host-pid', message, field: 'spec.hostPID' }] },
      },
    })
  })

  it('warns in short lines', async () => {
    const pod = makePod({}, {}, { labels: { 'synguard.io/inject': 'x'.repeat(400) } })
    const { response } = await mutate(makeReview(pod), lookup, SETTINGS)
    expect(response.warnings?.map((warning) => warning.length)).toEqual([256])
  })

  it.each([
    [null, 'malformed-review: the body must be a JSON object'],
    [{}, 'malformed-review: apiVersion is missing'],
    [
      { ...makeReview({}), apiVersion: 'admission.k8s.io/v1beta1' },
      'malformed-review: apiVersion and kind must be admission.k8s.io/v1 AdmissionReview',
    ],
    [makeReview({}, { uid: 7 }), 'malformed-review: request.uid must be a string'],
    [makeReview(null), 'malformed-object: the object is missing'],
    [makeReview({ spec: {} }), 'malformed-object: spec.containers is missing'],
    [makeReview({ spec: { containers: [null] } }), 'malformed-object: spec.containers[0] is missing'],
    [makeReview(makePod({ hostNetwork: 'true' })), 'malformed-object: spec.hostNetwork must be a boolean'],
    [
      makeReview(makePod({}, { securityContext: { capabilities: { add: [1] } } })),
      'malformed-object: spec.containers[0].securityContext.capabilities.add[0] must be a string',
    ],
    [
      makeReview(makePod(), { resource: { group: 'apps', resource: 'deployments' } }),
      "unexpected-resource: the webhook decides on pods only, not on deployments.apps: correct the webhook's rules",
    ],
  ])('answers what it cannot read with 400 (%#)', async (body, message) => {
    const { response } = await mutate(body, lookup, SETTINGS)
    expect([response.allowed, response.status?.code, response.status?.message]).toEqual([false, 400, message])
  })

  it('tells 32 causes of a refusal at most, each cut short, and how many more there are', async () => {
    const ports = Array.from({ length: 2_000 }, () => ({ containerPort: 15_900 }))
    const { response } = await mutate(makeReview(makePod({}, { name: 'n'.repeat(20_000), ports })), lookup, SETTINGS)
    expect(response.status?.details.causes.map(({ message }) => message.length)).toEqual(Array(32).fill(1_024))
    expect(response.status?.message.endsWith('; and 1968 more')).toBe(true)
  })

  it('refuses where the namespace is unknown or cannot be read, and tells the cause to the log only', async () => {
    const failures: unknown[] = []
    const failing = () => Promise.reject(new Error('secret detail'))
    const unknown = await mutate(makeReview(makePod(), { namespace: 'new' }), lookup, SETTINGS)
    const broken = await mutate(makeReview(makePod()), failing, SETTINGS, (error) => failures.push(error))
    expect([unknown.response.status?.code, unknown.response.status?.message]).toEqual([
      503,
      'namespace-unknown: namespace "new" is not known yet: try again',
    ])
    expect([broken.response.status?.code, broken.response.status?.message]).toEqual([
      503,
      'namespace-lookup-failed: namespace "shop" could not be read',
    ])
    expect(failures).toEqual([
      expect.objectContaining({ code: 'namespace-lookup-failed', cause: new Error('secret detail') }),
    ])
  })

  it.each([
    { operation: 'DELETE', object: null },
    { operation: 'UPDATE' },
    { operation: 'UPDATE', subResource: 'status' },
    { operation: 'CREATE', subResource: 'binding', object: { kind: 'Binding' } },
  ])('lets other operations on Pods pass: %j', async (request) => {
    const { response } = await mutate(makeReview(makePod(), request), lookup, SETTINGS)
    expect(response).toEqual({ uid: 'u-1', allowed: true })
  })

  it('never rejects, whatever JSON comes', async () => {
    const junk = fc.jsonValue({ maxDepth: 4 })
    const shaped = fc.record({
      metadata: fc.oneof(junk, fc.record({ labels: junk, annotations: junk })),
      spec: fc.oneof(
        junk,
        fc.record({
          containers: fc.oneof(
            junk,
            fc.array(
              fc.record({ name: fc.oneof(junk, fc.string()), securityContext: junk, ports: junk, lifecycle: junk }),
            ),
          ),
          initContainers: junk,
          volumes: junk,
          ephemeralContainers: junk,
        }),
      ),
    })
    const body = fc.oneof(
      junk,
      fc.oneof(junk, shaped).map((object) => makeReview(object)),
      fc
        .tuple(shaped, fc.oneof(junk, shaped))
        .map(([object, oldObject]) =>
          makeReview(object, { operation: 'UPDATE', subResource: 'ephemeralcontainers', oldObject }),
        ),
    )
    await fc.assert(
      fc.asyncProperty(body, async (value) => {
        const { response } = await mutate(JSON.parse(JSON.stringify(value)), lookup, SETTINGS)
        expect(response.allowed ? 'allowed' : response.status?.message).not.toMatch(/^internal-error/)
      }),
      { numRuns: 500 },
    )
  })

  it('answers even JSON too deep to walk', async () => {
    const depth = 200_000
    const deep = JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`)
    const { response } = await mutate(makeReview({ ...makePod(), extra: deep }), lookup, SETTINGS)
    expect(response.uid).toBe('u-1')
  })
})

describe('ephemeral containers of a guarded Pod', () => {
  it('lose NET_RAW; those that were there before are left alone', async () => {
    const review = await mutate(ephemeralReview({ image: 'busybox' }), lookup, SETTINGS)
    expect(review.response.allowed).toBe(true)
    expect(patchOf(review)).toEqual([
      {
        op: 'add',
        path: '/spec/ephemeralContainers/1/securityContext',
        value: { capabilities: { drop: ['NET_RAW'] } },
      },
    ])
  })

  it.each([
    [{ securityContext: { capabilities: { add: ['NET_ADMIN'] } } }, 'dangerous-capability'],
    [{ securityContext: { capabilities: { add: ['NET_RAW'] } } }, 'net-raw-added'],
    [{ securityContext: { privileged: true } }, 'privileged-container'],
    [{ targetContainerName: 'synguard-sidecar' }, 'sidecar-targeted'],
    [{ targetContainerName: 'synguard-init' }, 'sidecar-targeted'],
    [{ volumeMounts: [{ name: 'synguard-credentials', mountPath: '/x' }] }, 'reserved-volume'],
    [{ securityContext: { runAsUser: 15900 } }, 'reserved-user'],
  ])('%j is refused', async (container, code) => {
    const { response } = await mutate(ephemeralReview(container), lookup, SETTINGS)
    expect(response.status?.details.causes.map(({ reason }) => reason)).toEqual([code])
  })

  it('may be powerful where the Pod is annotated so, with a warning', async () => {
    const body = ephemeralReview(
      { securityContext: { capabilities: { add: ['SYS_PTRACE'] } }, targetContainerName: 'web' },
      { annotations: { 'synguard.io/allow-privileged': 'true' } },
    )
    const { response } = await mutate(body, lookup, SETTINGS)
    expect([response.allowed, response.warnings]).toEqual([
      true,
      ['synguard: the Pod is degraded, as it keeps d: SYS_PTRACE'],
    ])
  })

  it('of other Pods are none of our business', async () => {
    const object = makePod({ ephemeralContainers: [{ name: 'd', securityContext: { privileged: true } }] })
    const body = makeReview(object, { subResource: 'ephemeralcontainers', operation: 'UPDATE', oldObject: makePod() })
    expect((await mutate(body, lookup, SETTINGS)).response).toEqual({ uid: 'u-1', allowed: true })
  })
})
