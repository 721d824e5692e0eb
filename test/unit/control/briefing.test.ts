import { describe, expect, it } from '@jest/globals'
import { parseNetworkPolicies } from '../../../policy/parse.ts'
import { policiesMessage } from '../../../sidecar/control/briefing.ts'

const policy = (namespace: string, name: string, podSelector: string) => `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { namespace: ${namespace}, name: ${name} }
spec: { podSelector: ${podSelector} }
`

const SUBJECT = { namespace: 'shop', labels: { app: 'web' }, ports: [], uid: 'uid' }

describe('the packet path', () => {
  it('is told of those policies alone that select the Pod, in their order', () => {
    const all = [
      policy('shop', 'mine', '{ matchLabels: { app: web } }'),
      policy('shop', 'other', '{ matchLabels: { app: db } }'),
      policy('elsewhere', 'far', '{ matchLabels: { app: web } }'),
      policy('shop', 'everybody', '{}'),
    ]
    const policies = parseNetworkPolicies(all.join('---'), 'all.yaml')
    const [mine, , , everybody] = policies
    expect(policiesMessage(policies, SUBJECT)).toEqual({
      type: 'policies',
      policies: [mine, everybody],
      subject: SUBJECT,
    })
  })

  it('is told when no policy selects the Pod: nothing isolates it', () => {
    expect(policiesMessage([], SUBJECT)).toEqual({ type: 'policies', policies: [], subject: SUBJECT })
  })
})
