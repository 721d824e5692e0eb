/** A namespace's policies, as many as one likes: like those of real namespaces, and only one of them lets callers in. */
import type { Lab } from '../../../lab/lab.ts'
import { CALLERS, SERVERS } from './namespaces.ts'

/** Policies in a file: a directory source reads at most 1,000 files. */
const POLICIES_PER_FILE = 100
/** Every tenth policy selects the server. */
const SELECTS_SERVER = 10

/** Last in the order of names: the first connection of a peer passes by all other rules. */
const ALLOWS_CALLERS = 'zz-callers'

function policy(name: string, app: string, ingress: readonly object[]): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: SERVERS },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'], ingress },
  }
}

/** Five peers of the kinds that policies have; none of them is a caller of the bench. */
function peersOf(index: number): object[] {
  return [
    { podSelector: { matchLabels: { app: `frontend-${index}` } } },
    { namespaceSelector: { matchLabels: { team: `team-${index % 40}` } } },
    {
      namespaceSelector: { matchExpressions: [{ key: 'team', operator: 'In', values: [`a-${index}`, `b-${index}`] }] },
      podSelector: { matchLabels: { app: `worker-${index}` } },
    },
    { podSelector: { matchExpressions: [{ key: 'tier', operator: 'In', values: [`tier-${index}`, 'batch'] }] } },
    {
      ipBlock: {
        cidr: `172.${16 + (index % 16)}.${(index >> 4) % 256}.0/24`,
        except: [`172.${16 + (index % 16)}.${(index >> 4) % 256}.128/25`],
      },
    },
  ]
}

/** `count` NetworkPolicies: nine of ten select other Pods, one of ten this server; the last lets callers in. */
export function makePolicies(count: number, callersPort = 7000): object[] {
  const policies: object[] = []
  for (let index = 0; index < count - 1; index++) {
    const app = index % SELECTS_SERVER === 0 ? 'server' : `service-${index}`
    const ports = [{ port: 7000 }, { port: 8080 + (index % 100) }]
    policies.push(policy(`policy-${String(index).padStart(5, '0')}`, app, [{ from: peersOf(index), ports }]))
  }
  return [...policies, allowCallers(callersPort)]
}

/** The policy that lets the bench's callers in; another second port makes it another policy that allows the same. */
function allowCallers(secondPort: number): object {
  const from = [{ namespaceSelector: { matchLabels: { team: CALLERS } } }]
  return policy(ALLOWS_CALLERS, 'server', [{ from, ports: [{ port: 7000 }, { port: secondPort }] }])
}

/** Puts the policies into the lab, a List in each file; `callersPort` changes only the file of the last one. */
export function putPolicies(lab: Lab, count: number): void {
  const policies = makePolicies(count).slice(0, -1)
  for (let at = 0; at < policies.length; at += POLICIES_PER_FILE) {
    const items = policies.slice(at, at + POLICIES_PER_FILE)
    lab.putPolicy(SERVERS, `list-${at / POLICIES_PER_FILE}`, { apiVersion: 'v1', kind: 'List', items })
  }
  putCallersPolicy(lab, 7000)
}

export function putCallersPolicy(lab: Lab, secondPort: number): void {
  lab.putPolicy(SERVERS, ALLOWS_CALLERS, allowCallers(secondPort))
}
