import type { V1Pod, V1PodSpec } from '@kubernetes/client-node'
import { formatAddress, parseAddress } from '../policy/address.ts'
import {
  type Field,
  fieldError,
  isAbsent,
  member,
  readInteger,
  readItems,
  readLabels,
  readName,
  readOneOf,
  readOptionalText,
  readText,
  readTextMap,
  requireObject,
} from './field.ts'

const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const

function checkContainer(container: Field): string {
  requireObject(container)
  const name = readName(member(container, 'name'), 'label')
  for (const field of ['command', 'args']) {
    for (const word of readItems(member(container, field))) {
      if (typeof word.value !== 'string') throw fieldError(word, 'must be text; write it in quotes')
    }
  }
  const ports = new Set<string>()
  for (const port of readItems(member(container, 'ports'))) {
    requireObject(port)
    const number = readInteger(member(port, 'containerPort'), 1, 65535)
    const protocol = readOneOf(member(port, 'protocol'), PROTOCOLS, 'TCP')
    const portName = readOptionalText(member(port, 'name'))
    if (portName !== undefined && !/^(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$/.test(portName)) {
      throw fieldError(
        member(port, 'name'),
        `"${portName}" must be an IANA service name: at most 15 of a-z, 0-9 and "-"`,
      )
    }
    const key = `${protocol}/${number}`
    if (ports.has(key)) throw fieldError(port, `${key} is there twice; remove one`)
    ports.add(key)
  }
  for (const variable of readItems(member(container, 'env'))) readText(member(requireObject(variable), 'name'))
  for (const mount of readItems(member(container, 'volumeMounts'))) {
    readText(member(requireObject(mount), 'name'))
    readText(member(mount, 'mountPath'))
  }
  requireObject(member(container, 'securityContext'), true)
  return name
}

function checkSpec(spec: Field): void {
  requireObject(spec)
  const containers = readItems(member(spec, 'containers'))
  if (containers.length === 0) throw fieldError(member(spec, 'containers'), 'is empty; a Pod needs a container')
  const names = new Set<string>()
  for (const container of [...readItems(member(spec, 'initContainers')), ...containers]) {
    const name = checkContainer(container)
    if (names.has(name)) throw fieldError(member(container, 'name'), `"${name}" is there twice; rename one`)
    names.add(name)
  }
  for (const volume of readItems(member(spec, 'volumes'))) readName(member(requireObject(volume), 'name'), 'label')
}

function readAddresses(status: Field): string[] {
  requireObject(status, true)
  const single = member(status, 'podIP')
  const fields = readItems(member(status, 'podIPs')).map((item) => member(requireObject(item), 'ip'))
  if (!isAbsent(single) && !fields.some(({ value }) => value === single.value)) fields.unshift(single)
  const families = new Set<number>()
  return fields.map((field) => {
    const bytes = parseAddress(readText(field))
    if (bytes === undefined) throw fieldError(field, 'is no IPv4 or IPv6 address')
    if (families.has(bytes.length)) throw fieldError(field, 'is a second address of its family; a Pod has one of each')
    families.add(bytes.length)
    return formatAddress(bytes)
  })
}

export interface PodTemplate {
  readonly namespace: string
  readonly name: string
}

/** A Pod from a Pod document, or from a workload's `template`; its addresses, where fixed, are in status.podIPs. */
export function readPod(pod: Field, { namespace, name }: PodTemplate): V1Pod {
  const metadata = requireObject(member(pod, 'metadata'), true)
  const labels = readLabels(member(metadata, 'labels'))
  const annotations = readTextMap(member(metadata, 'annotations'))
  const spec = member(pod, 'spec')
  checkSpec(spec)
  const addresses = readAddresses(member(pod, 'status'))
  // The shape is checked above as far as the lab reads it; the webhook checks what it reads.
  const typedSpec = structuredClone(spec.value) as V1PodSpec
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels, annotations },
    spec: { ...typedSpec, serviceAccountName: typedSpec.serviceAccountName ?? 'default' },
    ...(addresses.length > 0 && { status: { podIP: addresses[0] ?? '', podIPs: addresses.map((ip) => ({ ip })) } }),
  }
}
