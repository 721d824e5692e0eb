import type { NamespaceFacts } from '../../../webhook/admission/namespace.ts'
import type { InjectionSettings } from '../../../webhook/admission/settings.ts'
import { parseInjectionSettings } from '../../../webhook/admission/settings.ts'

/** Settings of an installation. */
export const SETTINGS: InjectionSettings = parseInjectionSettings({
  image: 'synguard/sidecar:1',
  issuerUrl: 'https://10.96.0.20:8443',
  issuerName: 'synguard.synguard.svc',
  clusterNetworks: ['10.244.0.0/16', '10.96.0.0/12'],
})

/** A selected namespace. */
export const SHOP: NamespaceFacts = { name: 'shop', labels: { 'synguard.io/inject': 'enabled' }, annotations: {} }

/** A Pod of one container, with fields of the Pod's spec and of the container on top. */
export function makePod(spec: object = {}, container: object = {}, metadata: object = {}) {
  return { metadata: { name: 'web', ...metadata }, spec: { containers: [{ name: 'web', ...container }], ...spec } }
}
