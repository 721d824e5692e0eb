import { join } from 'node:path'
import { DEFAULT_INJECTION_SETTINGS, type InjectionSettings, NODE_FLAGS } from '../webhook/admission/settings.ts'
import { LAB_ADDRESSES } from './network.ts'
import { CHECKOUT } from './sandbox.ts'

/** Where the Pods of the lab find the webhook: on the bridge, in the node's network namespace. */
export const LAB_ISSUER = {
  address: LAB_ADDRESSES.gateway[0],
  port: 8443,
  name: 'synguard-webhook.synguard-system.svc',
} as const

const NODE = [process.execPath, '--no-warnings', ...NODE_FLAGS]

/**
 * The installation's settings for the lab: the sidecar of this checkout, policies from a directory of the run.
 * `podNetworks` are CIDRs of Pods outside of the usual private ranges; `bundle` is a folder that `npm run build` made,
 * whose sidecar is taken in place of the sources.
 */
export function labInjectionSettings(
  policyDirectory: string,
  podNetworks: readonly string[] = [],
  bundle?: string,
): InjectionSettings {
  const program = (name: 'init' | 'main'): string =>
    bundle === undefined ? join(CHECKOUT, 'sidecar', `${name}.ts`) : join(bundle, 'sidecar', `${name}.js`)
  return {
    ...DEFAULT_INJECTION_SETTINGS,
    image: 'synguard-sidecar:lab',
    imagePullPolicy: 'Never',
    issuerUrl: `https://${LAB_ISSUER.address}:${LAB_ISSUER.port}`,
    issuerName: LAB_ISSUER.name,
    clusterNetworks: [...DEFAULT_INJECTION_SETTINGS.clusterNetworks, ...podNetworks],
    policySource: { kind: 'directory', hostPath: policyDirectory },
    command: {
      init: [...NODE, program('init')],
      sidecar: [...NODE, program('main')],
    },
  }
}
