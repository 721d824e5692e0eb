import { describe, expect, it } from '@jest/globals'
import { parseManifests } from '../../../lab/manifests.ts'

const parse = (text: string) => parseManifests(new Map([['x.yaml', text]]))

function messageOf(text: string): string {
  try {
    parse(text)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
  return 'no error'
}

const POD = `apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c, image: x}]}
`

describe('manifests', () => {
  it('a Pod without a namespace is in default, which exists without declaration and with one label only', () => {
    const { pods, namespaces } = parse(POD)
    expect(pods.map(({ metadata }) => metadata)).toEqual([
      { name: 'a', namespace: 'default', labels: {}, annotations: {} },
    ])
    expect(namespaces).toEqual([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'default', labels: { 'kubernetes.io/metadata.name': 'default' }, annotations: {} },
      },
    ])
  })

  it('a declared namespace keeps its labels and gets the one that every namespace has', () => {
    const { namespaces } = parse('apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {a: b}}\n')
    expect(namespaces[0]?.metadata?.labels).toEqual({ a: 'b', 'kubernetes.io/metadata.name': 'n' })
  })

  it('y and no are names, 0644 is octal, as in a volume', () => {
    const volumes = 'volumes: [{name: "no", configMap: {name: m, defaultMode: 0644}}]'
    const { pods } = parse(POD.replace('name: a', 'name: y, namespace: no').replace('}]}', `}], ${volumes}}`))
    expect([pods[0]?.metadata?.name, pods[0]?.metadata?.namespace]).toEqual(['y', 'no'])
    expect(pods[0]?.spec?.volumes?.[0]?.configMap?.defaultMode).toBe(0o644)
  })

  it.each([
    ['Deployment', 'replicas: 3, ', ['w-0', 'w-1', 'w-2']],
    ['StatefulSet', 'replicas: 2, ', ['w-0', 'w-1']],
    ['ReplicaSet', '', ['w-0']],
    ['DaemonSet', '', ['w-0']],
    ['Deployment', 'replicas: 0, ', []],
  ])('a %s with "%s" becomes its Pods', (kind, replicas, names) => {
    const template = 'template: {metadata: {labels: {app: w}}, spec: {containers: [{name: c, image: x}]}}'
    const { pods } = parse(
      `apiVersion: apps/v1\nkind: ${kind}\nmetadata: {name: w, namespace: n}\nspec: {${replicas}${template}}\n`,
    )
    expect(pods.map(({ metadata }) => [metadata?.name, metadata?.labels])).toEqual(
      names.map((name) => [name, { app: 'w' }]),
    )
  })

  it("a List counts as its items, and addresses in a Pod's status are made canonical", () => {
    const item = `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "FD00::0:1"}]}}`
    const { pods } = parse(`apiVersion: v1\nkind: List\nitems: [${item}]\n`)
    expect(pods.map(({ status }) => status)).toEqual([
      { podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }] },
    ])
  })

  it.each([
    ['kind: [', 'x.yaml: is not YAML'],
    ['just text', 'x.yaml: the document must be an object'],
    ['metadata: {name: a}', 'x.yaml: kind is missing; add it'],
    [
      `${POD}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}`,
      'x.yaml document 2: kind ConfigMap is not one that the lab runs',
    ],
    ['apiVersion: v1\nkind: Deployment\nmetadata: {name: a}', 'x.yaml: apiVersion must be apps/v1 for kind Deployment'],
    [POD.replace('name: a', 'name: A_b'), 'x.yaml: metadata.name "A_b" must be lower case'],
    [POD.replace('name: a', 'name: a, labels: {on: true}'), 'x.yaml: metadata.labels.on must be text'],
    [POD.replace('name: a', 'name: a, labels: {x: "-"}'), 'x.yaml: metadata.labels.x "-" is no valid label value'],
    [POD.replace('[{name: c, image: x}]', '[]'), 'x.yaml: spec.containers is empty'],
    [
      POD.replace('image: x', 'ports: [{containerPort: 70000}]'),
      'x.yaml: spec.containers[0].ports[0].containerPort must be a whole number from 1 to 65535',
    ],
    [
      POD.replace('image: x', 'ports: [{containerPort: 1, protocol: tcp}]'),
      'x.yaml: spec.containers[0].ports[0].protocol must be one of TCP, UDP, SCTP',
    ],
    [
      POD.replace('image: x', 'ports: [{containerPort: 1, name: a_b}]'),
      'x.yaml: spec.containers[0].ports[0].name "a_b" must be an IANA service name',
    ],
    [
      POD.replace('image: x', 'ports: [{containerPort: 1},{containerPort: 1}]'),
      'x.yaml: spec.containers[0].ports[1] TCP/1 is there twice',
    ],
    [`${POD}---\n${POD}`, 'x.yaml document 2: metadata.name default/a is there twice'],
    [`${POD}status: {podIP: 10.0.0.256}`, 'x.yaml: status.podIP is no IPv4 or IPv6 address'],
    ['apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}}', 'x.yaml: spec.ports is empty'],
    [
      'apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingres: []}',
      'spec.ingres',
    ],
  ])('%s is refused with the place of the mistake', (text, message) => {
    expect(messageOf(text)).toContain(message)
  })
})
