import type {
  BundleKey,
  DirectoryEntry,
  IdentityResponse,
  Labels,
  Mode,
  NamedPort,
  NodePort,
  PodIdentity,
  Protocol,
  ServiceBackend,
  ServicePort,
  StreamMessage,
  TrustBundle,
  VoidEntry,
} from '../../api/identity.ts'
import { jwkThumbprint, parsePublicJwk } from '../../certs/authority.ts'
import { canonicalAddress } from '../../policy/address.ts'
import { ControlError } from './errors.ts'

/**
 * What the issuer sends, checked value by value before anything uses it. Unknown members are ignored, since a newer
 * issuer may send more; a known member of the wrong shape is an error that names it.
 */
type Fields = Readonly<Record<string, unknown>>

const PROTOCOLS: readonly Protocol[] = ['TCP', 'UDP', 'SCTP']
const MODES: readonly Mode[] = ['enforce', 'audit', 'off']
/** Far above one rotation's two or three keys. */
const MAX_BUNDLE_KEYS = 32

function wrong(path: string, expected: string): ControlError {
  return new ControlError('issuer-answer', `${path} is not ${expected}`)
}

function fields(value: unknown, path: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(path, 'an object')
  return value as Fields
}

function text(value: unknown, path: string, maxLength = 512): string {
  if (typeof value !== 'string' || value === '' || value.length > maxLength) throw wrong(path, 'a text')
  return value
}

function flag(value: unknown, path: string): boolean {
  if (typeof value !== 'boolean') throw wrong(path, 'true or false')
  return value
}

function list<T>(value: unknown, path: string, parse: (item: unknown, path: string) => T): readonly T[] {
  if (!Array.isArray(value)) throw wrong(path, 'a list')
  return value.map((item: unknown, index) => parse(item, `${path}[${index}]`))
}

function oneOf<T extends string>(value: unknown, path: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value)
  if (found === undefined) throw wrong(path, `one of ${allowed.join(', ')}`)
  return found
}

function port(value: unknown, path: string): number {
  if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > 65_535) throw wrong(path, 'a port')
  return value as number
}

function address(value: unknown, path: string): string {
  if (typeof value !== 'string' || canonicalAddress(value) !== value) throw wrong(path, 'a canonical IP address')
  return value
}

function labels(value: unknown, path: string): Labels {
  const found = fields(value, path)
  for (const [key, label] of Object.entries(found))
    if (typeof label !== 'string') throw wrong(`${path}[${key}]`, 'a text')
  return found as Labels
}

function namedPort(value: unknown, path: string): NamedPort {
  const item = fields(value, path)
  return {
    name: text(item.name, `${path}.name`),
    port: port(item.port, `${path}.port`),
    protocol: oneOf(item.protocol, `${path}.protocol`, PROTOCOLS),
  }
}

/** A Pod out of JSON; throws ControlError `issuer-answer`. */
export function parsePodIdentity(value: unknown, path: string): PodIdentity {
  const pod = fields(value, path)
  return {
    namespace: text(pod.namespace, `${path}.namespace`),
    name: text(pod.name, `${path}.name`),
    uid: text(pod.uid, `${path}.uid`),
    serviceAccount: text(pod.serviceAccount, `${path}.serviceAccount`),
    labels: labels(pod.labels, `${path}.labels`),
    namespaceLabels: labels(pod.namespaceLabels, `${path}.namespaceLabels`),
    addresses: list(pod.addresses, `${path}.addresses`, address),
    ports: list(pod.ports, `${path}.ports`, namedPort),
    ...(pod.degraded === undefined
      ? {}
      : { degraded: list(pod.degraded, `${path}.degraded`, (item, where) => text(item, where)) }),
  }
}

function serviceBackend(value: unknown, path: string): ServiceBackend {
  const item = fields(value, path)
  return {
    address: address(item.address, `${path}.address`),
    port: port(item.port, `${path}.port`),
    guarded: flag(item.guarded, `${path}.guarded`),
    ...(item.pod === undefined ? {} : { pod: parsePodIdentity(item.pod, `${path}.pod`) }),
  }
}

function servicePort(value: unknown, path: string): ServicePort {
  const item = fields(value, path)
  return {
    protocol: oneOf(item.protocol, `${path}.protocol`, PROTOCOLS),
    port: port(item.port, `${path}.port`),
    backends: list(item.backends, `${path}.backends`, serviceBackend),
  }
}

function nodePort(value: unknown, path: string): NodePort {
  const item = fields(value, path)
  return {
    protocol: oneOf(item.protocol, `${path}.protocol`, PROTOCOLS),
    port: port(item.port, `${path}.port`),
    serviceAddress: address(item.serviceAddress, `${path}.serviceAddress`),
    servicePort: port(item.servicePort, `${path}.servicePort`),
  }
}

/** A DirectoryEntry out of JSON; throws ControlError `issuer-answer`, an unknown kind too: it must not match anything. */
export function parseDirectoryEntry(value: unknown, path = 'entry'): DirectoryEntry {
  const entry = fields(value, path)
  switch (entry.kind) {
    case 'pod':
      return {
        kind: 'pod',
        guarded: flag(entry.guarded, `${path}.guarded`),
        pod: parsePodIdentity(entry.pod, `${path}.pod`),
      }
    case 'service':
      return {
        kind: 'service',
        namespace: text(entry.namespace, `${path}.namespace`),
        name: text(entry.name, `${path}.name`),
        ports: list(entry.ports, `${path}.ports`, servicePort),
      }
    case 'node':
      return {
        kind: 'node',
        name: text(entry.name, `${path}.name`),
        // An older issuer says nothing of them.
        ports: entry.ports === undefined ? [] : list(entry.ports, `${path}.ports`, nodePort),
      }
    case 'unmatched':
      return { kind: 'unmatched', reason: text(entry.reason, `${path}.reason`) }
    case 'external':
      return { kind: 'external' }
    default:
      throw wrong(`${path}.kind`, 'pod, service, node, unmatched or external')
  }
}

function bundleKey(value: unknown, path: string): BundleKey {
  const jwk = parsePublicJwk(value)
  const kid = fields(value, path).kid
  // The kid is the key's thumbprint, so one kid can never stand for two keys.
  if (jwk === undefined || kid !== jwkThumbprint(jwk)) throw wrong(path, 'a P-256 key with its thumbprint as kid')
  return { ...jwk, kid }
}

/** A trust bundle of 1 to 32 keys out of JSON; throws ControlError `issuer-answer`. */
export function parseTrustBundle(value: unknown, path = 'bundle'): TrustBundle {
  const keys = list(fields(value, path).keys, `${path}.keys`, bundleKey)
  if (keys.length === 0 || keys.length > MAX_BUNDLE_KEYS) throw wrong(`${path}.keys`, `1 to ${MAX_BUNDLE_KEYS} keys`)
  const { generation, signer } = fields(value, path)
  if (generation !== undefined && (!Number.isSafeInteger(generation) || Number(generation) < 0)) {
    throw wrong(`${path}.generation`, 'a whole number from 0 on')
  }
  if (signer !== undefined && !keys.some(({ kid }) => kid === signer)) throw wrong(`${path}.signer`, 'the kid of a key')
  return {
    keys,
    ...(generation !== undefined && { generation: generation as number }),
    ...(signer !== undefined && { signer: signer as string }),
  }
}

/** The answer of `/v1/identity` out of JSON; the WIT in it is not verified. Throws ControlError `issuer-answer`. */
export function parseIdentityResponse(value: unknown): IdentityResponse {
  const answer = fields(value, 'answer')
  return { wit: text(answer.wit, 'answer.wit', 16_384), bundle: parseTrustBundle(answer.bundle, 'answer.bundle') }
}

function voidEntry(value: unknown, path: string): VoidEntry {
  const entry = fields(value, path)
  if (!Number.isSafeInteger(entry.iatBefore)) throw wrong(`${path}.iatBefore`, 'a whole number of seconds')
  return {
    uid: text(entry.uid, `${path}.uid`),
    iatBefore: entry.iatBefore as number,
    ...(entry.labels === undefined ? {} : { labels: labels(entry.labels, `${path}.labels`) }),
    ...(entry.namespaceLabels === undefined
      ? {}
      : { namespaceLabels: labels(entry.namespaceLabels, `${path}.namespaceLabels`) }),
  }
}

/**
 * One line of the stream. undefined for a type that this version does not know (a newer issuer's); throws ControlError
 * `issuer-answer` for a known type of the wrong shape: to skip a void or an entry would keep access that is gone.
 */
export function parseStreamMessage(line: string): StreamMessage | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw wrong('message', 'JSON')
  }
  const message = fields(value, 'message')
  switch (message.type) {
    case 'hello':
      return {
        type: 'hello',
        bundle: parseTrustBundle(message.bundle),
        voids: list(message.voids, 'voids', voidEntry),
        mode: oneOf(message.mode, 'mode', MODES),
      }
    case 'ping':
      return { type: 'ping' }
    case 'renew':
      return { type: 'renew' }
    case 'bundle':
      return { type: 'bundle', bundle: parseTrustBundle(message.bundle) }
    case 'void':
      return { type: 'void', void: voidEntry(message.void, 'void') }
    case 'directory':
      return {
        type: 'directory',
        address: address(message.address, 'address'),
        entry: parseDirectoryEntry(message.entry),
      }
    case 'mode':
      return { type: 'mode', mode: oneOf(message.mode, 'mode', MODES) }
    default:
      text(message.type, 'message.type')
      return undefined
  }
}
