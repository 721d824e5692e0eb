/** What the API server's own type checker says of the admission policies; the controller manager runs it. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1ValidatingAdmissionPolicy } from '@kubernetes/client-node'
import { parseAllDocuments } from 'yaml'
import { KUSTOMIZATION, uninstall } from './installation.ts'
import { apply, getJson, kubectl, tryKubectl, until } from './kubectl.ts'

const MISTAKEN = 'mistaken-for-a-test'

/** The policies of the installation, in the order in which they are written. */
async function rendered(): Promise<object[]> {
  const documents = parseAllDocuments(await kubectl('kustomize', KUSTOMIZATION))
  return documents.flatMap((document) => {
    const object = document.toJS() as { kind: string }
    return object.kind === 'ValidatingAdmissionPolicy' ? [object] : []
  })
}

/** Expressions with a type error of a policy, once the checker has looked at it as it is now. */
function warningsOf(name: string): Promise<string[]> {
  return until(`the type check of ${name}`, async () => {
    const policy = await getJson<V1ValidatingAdmissionPolicy>(`validatingadmissionpolicy/${name}`)
    const { observedGeneration, typeChecking } = policy.status ?? {}
    if (typeChecking === undefined || observedGeneration !== policy.metadata?.generation) return false
    return (typeChecking.expressionWarnings ?? []).map(({ fieldRef, warning }) => `${fieldRef}: ${warning}`)
  })
}

describe('the admission policies', () => {
  let policies: object[] = []
  beforeAll(async () => {
    policies = await rendered()
    await apply(...policies)
  })
  afterAll(async () => {
    await tryKubectl(['delete', 'validatingadmissionpolicy', MISTAKEN, '--ignore-not-found'])
    await uninstall()
  })

  it('are found mistaken where they are: the checker looks', async () => {
    const [first] = policies as V1ValidatingAdmissionPolicy[]
    const validations = [{ expression: 'object.spec.containersss.size() == 0' }]
    const spec = { failurePolicy: 'Fail', matchConstraints: first?.spec?.matchConstraints, validations }
    await apply({ ...first, metadata: { name: MISTAKEN }, spec })
    expect(await warningsOf(MISTAKEN)).toEqual([expect.stringMatching(/undefined field 'containersss'/)])
  })

  it('have right types in every expression', async () => {
    const names = policies.map((policy) => (policy as V1ValidatingAdmissionPolicy).metadata?.name ?? '')
    expect(names.length).toBeGreaterThan(3)
    expect(await Promise.all(names.map(warningsOf))).toEqual(names.map(() => []))
  })
})
