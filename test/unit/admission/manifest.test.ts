import { describe, expect, it } from '@jest/globals'
import { AdmissionError } from '../../../webhook/admission/errors.ts'
import { inject } from '../../../webhook/admission/inject.ts'
import { injectManifest, WORKLOAD_KINDS } from '../../../webhook/admission/manifest.ts'
import { parsePod } from '../../../webhook/admission/pod.ts'
import { makePod, SETTINGS, SHOP } from './subjects.ts'

const template = makePod()
const injection = inject(parsePod(template), SHOP, SETTINGS)
const injected = injection.kind === 'injected' ? injection.pod : undefined

describe('injectManifest', () => {
  it('a Pod becomes what admission makes of it', () => {
    expect(injectManifest({ kind: 'Pod', ...template }, SHOP, SETTINGS).document).toEqual({ kind: 'Pod', ...injected })
  })

  it.each(['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job'])(
    '%s: the template changes, no more',
    (kind) => {
      const document = { kind, metadata: { name: 'w' }, spec: { replicas: 2, template } }
      expect(injectManifest(document, SHOP, SETTINGS)).toEqual({
        document: { ...document, spec: { replicas: 2, template: injected } },
        injection,
      })
    },
  )

  it('CronJob keeps its template deeper', () => {
    const of = (pod: unknown) => ({
      kind: 'CronJob',
      spec: { schedule: '@daily', jobTemplate: { spec: { template: pod } } },
    })
    expect(injectManifest(of(template), SHOP, SETTINGS).document).toEqual(of(injected))
  })

  it('leaves kinds without Pods alone', () => {
    for (const document of [{ kind: 'Service' }, { kind: 'toString' }, null, 'text']) {
      expect(injectManifest(document, SHOP, SETTINGS)).toEqual({ document })
    }
    expect(WORKLOAD_KINDS).toEqual(['Pod', 'Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job', 'CronJob'])
  })

  it('leaves a refused template as it is, with the refusal', () => {
    const document = { kind: 'Job', spec: { template: makePod({ hostPID: true }) } }
    const result = injectManifest(document, SHOP, SETTINGS)
    expect([result.document, result.injection?.kind]).toEqual([document, 'refused'])
  })

  it.each([
    [{ kind: 'Deployment' }, 'spec must be an object'],
    [{ kind: 'Deployment', spec: {} }, 'spec.template is missing'],
    [
      { kind: 'Deployment', spec: { template: { spec: { containers: [{}] } } } },
      'spec.template.spec.containers[0].name is missing',
    ],
    [{ kind: 'CronJob', spec: { jobTemplate: 1 } }, 'spec.jobTemplate must be an object'],
  ])('names the field of a template that it cannot read: %j', (document, message) => {
    expect(() => injectManifest(document, SHOP, SETTINGS)).toThrow(new AdmissionError('malformed-object', message))
  })
})
