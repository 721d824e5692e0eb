import { describe, expect, it } from '@jest/globals'
import { type Admission, seen, unseen } from '../../../../cli/check/facts.ts'
import { ABSENT, findings, guarded, LABELS, lines, namespace, pod, SETTINGS } from './facts.ts'

const refused = (message: string) => ({ admission: seen<Admission>({ kind: 'refused', status: 403, message }) })
const VIOLATION = 'pods "synguard-check" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'

describe('pod-security', () => {
  const level = (name: string | undefined, admission: Parameters<typeof namespace>[1] = {}) => {
    const labels = { ...LABELS, ...(name && { 'pod-security.kubernetes.io/enforce': name }) }
    return lines('pod-security', { namespaces: seen([namespace([], admission, { labels })]) })
  }
  const untried = { admission: unseen('you may not create pods in namespace shop') }

  it('goes by the label where nothing could be tried', () => {
    expect(level('privileged', untried)).toEqual(['ok 1 labelled namespace may have the sidecar'])
    expect(level(undefined, untried)[0]).toMatch(/^ok/)
    for (const name of ['baseline', 'restricted']) {
      expect(level(name, untried)).toEqual([`fix Pod Security "${name}" of shop refuses the sidecar's NET_ADMIN`])
    }
  })

  it('goes by what the API server did where it was tried: a default level has no label', () => {
    expect(level(undefined, refused(VIOLATION))).toEqual([
      'fix Pod Security "baseline" of shop refuses the sidecar\'s NET_ADMIN',
    ])
    expect(level('baseline')[0]).toMatch(/^note shop says Pod Security "baseline", but a Pod with a sidecar passes/)
  })

  it('has the command that mends it, and works before an installation', () => {
    const labels = { ...LABELS, 'pod-security.kubernetes.io/enforce': 'restricted' }
    const plain = { kind: 'admitted', pod: pod('synguard-check') } as const
    const namespaces = seen([namespace([], { admission: seen(plain) }, { labels })])
    const found = findings({ installation: ABSENT, namespaces }).find(({ check }) => check === 'pod-security')
    expect(found).toEqual({
      check: 'pod-security',
      status: 'fix',
      message: 'Pod Security "restricted" of shop refuses the sidecar\'s NET_ADMIN',
      fix: 'kubectl label namespace shop --overwrite pod-security.kubernetes.io/enforce=privileged',
      namespace: 'shop',
    })
  })
})

describe('pod-admission', () => {
  const admission = (message: string) => lines('pod-admission', { namespaces: seen([namespace([], refused(message))]) })

  it('tells what else refuses Pods, and leaves to others what is theirs', () => {
    expect(admission('admission webhook "x" denied the request: no')).toEqual([
      'fix shop: a Pod is refused in a dry run: admission webhook "x" denied the request: no',
    ])
    expect(admission('exceeded quota: small')).toEqual([
      'note shop: a Pod is refused in a dry run: exceeded quota: small',
    ])
    expect(admission(VIOLATION)).toEqual([])
    expect(admission('Internal error occurred: failed calling webhook "pods.synguard.io": EOF')).toEqual([])
  })
})

describe('policy-access', () => {
  const binding = (found: Parameters<typeof namespace>[1]) =>
    lines('policy-access', { namespaces: seen([namespace([], found)]) })
  const roleRef = { apiGroup: '', kind: 'ClusterRole', name: 'synguard-policy-reader' }

  it('needs the RoleBinding of the right role to the right accounts', () => {
    expect(binding({})).toEqual(['ok sidecars of 1 labelled namespace may read its policies'])
    const subjects = [{ kind: 'Group', name: 'system:serviceaccounts:other' }]
    for (const found of [undefined, { roleRef }, { roleRef, subjects }]) {
      expect(binding({ binding: seen(found) })[0]).toMatch(/^fix shop: no RoleBinding synguard-policy-reader/)
    }
    expect(binding({ binding: unseen('you may not get rolebindings') })[0]).toMatch(/^unseen/)
  })
})

describe('sidecars', () => {
  it('are counted by version and namespace, with who is left alone and why', () => {
    const older = guarded('b', { ...SETTINGS, image: 'synguard/sidecar:0.0.9' })
    const pods = [guarded('a'), older, pod('c', { hostNetwork: true })]
    expect(lines('sidecars', { namespaces: seen([namespace(pods)]) })).toEqual([
      'ok shop: 2 of 3 Pods guarded: 1 at synguard/sidecar:0.1.0, 1 at synguard/sidecar:0.0.9; 1 Pod left alone: host-network',
    ])
  })

  it('that are not ready are named with their log', () => {
    const status = { name: 'synguard-sidecar', ready: false, image: '', imageID: '', restartCount: 0 }
    const sick = { ...guarded('sick'), status: { phase: 'Running', initContainerStatuses: [status] } }
    const found = findings({ namespaces: seen([namespace([sick])]) }).find(({ check }) => check === 'sidecars')
    expect(found).toMatchObject({
      status: 'fix',
      message: 'shop: 1 of 1 Pod guarded: 1 at synguard/sidecar:0.1.0; not ready: the sidecar of sick',
      fix: 'kubectl -n shop logs sick -c synguard-sidecar',
      namespace: 'shop',
    })
  })

  it('of a namespace whose Pods may not be seen are said to be so, and those of others counted', () => {
    const hidden = namespace([], { pods: unseen('you may not list pods in the namespace bank') }, { name: 'bank' })
    expect(lines('sidecars', { namespaces: seen([namespace(), hidden]) })).toEqual([
      'ok shop: 1 of 1 Pod guarded: 1 at synguard/sidecar:0.1.0',
      'unseen bank: the Pods could not be seen: you may not list pods in the namespace bank',
    ])
  })
})

describe('unguarded-pods', () => {
  const owned = (name: string, kind: string, owner: string, labels = {}) =>
    pod(name, {}, { labels, ownerReferences: [{ apiVersion: 'apps/v1', kind, name: owner, uid: 'u' }] })

  it('names what is to be restarted', () => {
    const web = owned('web-5d4-x', 'ReplicaSet', 'web-5d4', { 'pod-template-hash': '5d4' })
    const pods = [guarded('a'), web, owned('db-0', 'StatefulSet', 'db'), pod('alone')]
    const found = findings({ namespaces: seen([namespace(pods)]) }).find(({ check }) => check === 'unguarded-pods')
    expect(found).toMatchObject({
      status: 'fix',
      message: 'shop: 3 Pods of deployment/web, statefulset/db, pod/alone without sidecar, older than the label',
      fix: 'kubectl -n shop rollout restart deployment/web statefulset/db',
    })
  })

  it('leaves out what is over, what goes and what is left alone', () => {
    const over = { ...pod('over'), status: { phase: 'Succeeded' } }
    const going = pod('going', {}, { deletionTimestamp: new Date() })
    const mirror = pod('static', {}, { annotations: { 'kubernetes.io/config.mirror': 'x' } })
    expect(lines('unguarded-pods', { namespaces: seen([namespace([over, going, mirror])]) })).toEqual([
      'ok no Pod of a labelled namespace is without sidecar that should have one',
    ])
  })

  it('says which Pods would be refused, with the reason', () => {
    const strong = pod('strong', { containers: [{ name: 'app', securityContext: { privileged: true } }] })
    const found = findings({ namespaces: seen([namespace([strong])]) }).find(({ check }) => check === 'unguarded-pods')
    expect(found?.message).toBe('shop: Pod strong is not guarded, and would be refused if it were made again')
    expect(found?.fix).toContain('privileged')
  })

  it('is told without the settings too', () => {
    const installation = { settings: unseen('you may not get configmaps') }
    const found = lines('unguarded-pods', { installation, namespaces: seen([namespace([pod('a')])]) })
    expect(found[0]).toMatch(/^fix shop: 1 Pod of pod\/a without sidecar/)
  })
})

describe('older-pods', () => {
  const older = (changes: Partial<typeof SETTINGS>) =>
    lines('older-pods', { namespaces: seen([namespace([guarded('a', { ...SETTINGS, ...changes }), guarded('b')])]) })

  it.each([
    ['image', { image: 'synguard/sidecar:0.0.9' }],
    ['SYNGUARD_ISSUER_URL', { issuerUrl: 'https://10.96.1.1:443' }],
    ['SYNGUARD_CLUSTER_NETWORKS', { clusterNetworks: ['10.0.0.0/8'] }],
    ['command', { command: { init: ['/init'], sidecar: ['/sidecar'] } }],
  ])('tells by the %s', (what, changes) => {
    expect(older(changes)).toEqual([`fix shop: 1 Pod of pod/a older than the settings (${what})`])
  })

  it('does not take for older what a Pod chose by annotation', () => {
    const chosen = guarded('a', SETTINGS, { annotations: { 'synguard.io/mode': 'audit' } })
    const current = { ...chosen, metadata: { ...chosen.metadata, annotations: {} } }
    expect(lines('older-pods', { namespaces: seen([namespace([current])]) })).toEqual([
      'ok all sidecars are as the settings have them',
    ])
  })

  it('cannot be told without the settings', () => {
    const installation = { settings: unseen('you may not get configmaps') }
    expect(lines('older-pods', { installation })).toEqual([
      'unseen which Pods are older than the settings could not be seen: you may not get configmaps',
    ])
  })
})

describe('namespace-mode', () => {
  const modes = (data: Record<string, string> | undefined, annotations = {}, installation = {}) => {
    const mode = seen(data === undefined ? undefined : { data })
    return lines('namespace-mode', { namespaces: seen([namespace([], { mode }, { annotations })]), installation })
  }
  const unsettled = { settings: unseen('you may not get configmaps') }

  it('compares the ConfigMap that sidecars follow with the annotations of the namespace', () => {
    const isFine = ['ok 1 labelled namespace with the mode of its annotations']
    const differs = ['fix shop: ConfigMap synguard-mode is not what the annotations say']
    expect(modes({ mode: 'enforce', 'break-glass': '' })).toEqual(isFine)
    expect(modes({ mode: 'audit', 'break-glass': '' }, { 'synguard.io/mode': 'audit' })).toEqual(isFine)
    expect(modes({ mode: 'audit', 'break-glass': '' })).toEqual(differs)
    expect(modes({ mode: 'enforce', 'break-glass': 'off' })).toEqual(differs)
    expect(modes(undefined)).toEqual(['fix shop: no ConfigMap synguard-mode, so sidecars hear of no mode'])
  })

  it('judges no mode by settings that it could not see', () => {
    expect(modes({ mode: 'audit', 'break-glass': '' }, {}, unsettled)[0]).toMatch(/^ok/)
    expect(modes({ mode: 'off', 'break-glass': '' }, { 'synguard.io/mode': 'audit' }, unsettled)[0]).toMatch(/^fix/)
    expect(modes({ mode: 'audit', 'break-glass': 'audit' }, {}, unsettled)[0]).toMatch(/^fix/)
  })

  it('tells whose glass is broken, and how to mend it', () => {
    const annotations = { 'synguard.io/break-glass': 'off: outage 7' }
    const namespaces = seen([
      namespace([], { mode: seen({ data: { mode: 'enforce', 'break-glass': 'off' } }) }, { annotations }),
    ])
    expect(findings({ namespaces }).filter(({ check }) => check === 'namespace-mode')).toEqual([
      {
        check: 'namespace-mode',
        status: 'note',
        message: 'shop: the glass is broken, nothing is refused there (off): outage 7',
        fix: 'kubectl annotate namespace shop synguard.io/break-glass-',
        namespace: 'shop',
      },
    ])
  })

  it('says where it could not look', () => {
    const namespaces = seen([namespace([], { mode: unseen('you may not get configmaps in the namespace shop') })])
    expect(lines('namespace-mode', { namespaces })).toEqual([
      'unseen ConfigMap synguard-mode could not be seen: you may not get configmaps in the namespace shop',
    ])
  })
})
