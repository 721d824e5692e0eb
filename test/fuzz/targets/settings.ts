import { isDeepStrictEqual } from 'node:util'
import { API_SERVER_ENVIRONMENT, ENVIRONMENT } from '../../../api/environment.ts'
import { formatCidr } from '../../../policy/address.ts'
import { ControlError } from '../../../sidecar/control/errors.ts'
import { parseSettings, type SidecarSettings } from '../../../sidecar/control/settings.ts'
import { renderContainers } from '../../../webhook/admission/containers.ts'
import { AdmissionError } from '../../../webhook/admission/errors.ts'
import { type InjectionSettings, parseInjectionSettings } from '../../../webhook/admission/settings.ts'
import { SETTINGS } from '../../unit/admission/subjects.ts'
import { hold, valueTarget } from '../target.ts'
import { isObject, type Json, textOf, unfold } from '../values.ts'

/** What the kubelet fills in for the fields that the variables refer to. */
const DOWNWARD: Readonly<Record<string, string>> = {
  [ENVIRONMENT.podNamespace]: 'shop',
  [ENVIRONMENT.podName]: 'web-0',
  [ENVIRONMENT.podUid]: '4a1c6e9f-1b5f-4f37-9c0e-6a4f4c3b2a10',
  [ENVIRONMENT.nodeName]: 'node-1.example',
  [ENVIRONMENT.podIps]: '10.244.0.5,fd00::5',
  [ENVIRONMENT.hostIps]: '192.0.2.1',
}

/** The sidecar's variables as the webhook writes them into a Pod, and the kubelet beside them. */
function renderedEnvironment(settings: InjectionSettings): Record<string, string> {
  const { defaults: choices } = settings
  const spec = { containers: [{ name: 'web' }] }
  const probePorts = ['TCP/8080']
  const [, sidecar] = renderContainers({ spec, choices, probePorts, cpuLimitRequired: false, settings })
  const entries = (sidecar.env ?? []).map(({ name, value }): [string, string] => [name, value ?? DOWNWARD[name] ?? ''])
  return { ...Object.fromEntries(entries), [API_SERVER_ENVIRONMENT.apiServerAddress]: '10.96.0.1' }
}

const ENVIRONMENT_SEED = renderedEnvironment(SETTINGS)

/** The variables that give the same settings, in canonical form. */
function canonicalEnvironment(settings: SidecarSettings): Record<string, string> {
  return {
    [ENVIRONMENT.podIps]: settings.podAddresses.join(','),
    [ENVIRONMENT.hostIps]: settings.hostAddresses.join(','),
    [ENVIRONMENT.nodeAddresses]: settings.nodeAddresses.join(','),
    [ENVIRONMENT.clusterNetworks]: settings.clusterNetworks.map(formatCidr).join(','),
    [ENVIRONMENT.probePorts]: settings.probePorts.map(({ protocol, port }) => `${protocol}/${port}`).join(','),
    [ENVIRONMENT.healthPort]: String(settings.healthPort),
  }
}

function checkSidecar(environment: Record<string, string>): string {
  let settings: SidecarSettings
  try {
    settings = parseSettings(environment)
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'settings-invalid') throw error
    const given = Object.values(environment).reduce((sum, value) => sum + value.length, 0)
    hold(error.message.length <= 8_192 + 300 * given, 'what is wrong is told in bounds')
    return 'sidecar-refused'
  }
  const again = parseSettings({ ...environment, ...canonicalEnvironment(settings) })
  hold(isDeepStrictEqual(again, settings), 'settings in canonical form are the same settings')
  return 'sidecar-ok'
}

function checkWebhook(value: Json): string {
  let settings: InjectionSettings
  try {
    settings = parseInjectionSettings(value)
  } catch (error) {
    if (!(error instanceof AdmissionError) || error.code !== 'bad-setting') throw error
    return 'webhook-refused'
  }
  const again = parseInjectionSettings(JSON.parse(JSON.stringify(settings)))
  hold(isDeepStrictEqual(again, settings), 'parsed injection settings parse to themselves')
  try {
    parseSettings(renderedEnvironment(settings))
  } catch (error) {
    const reason = error instanceof Error ? error.message : ''
    throw new Error(`the sidecar cannot start with settings that the webhook takes: ${reason.slice(0, 120)}`)
  }
  return 'webhook-ok'
}

const INJECTION_SEED: Json = JSON.parse(JSON.stringify({ ...SETTINGS, nodeAddresses: ['192.0.2.7', 'fd00::7'] }))

export const settingsTarget = valueTarget({
  name: 'settings',
  about:
    "the sidecar's environment and the webhook's injection settings: what the webhook takes, the sidecar starts with",
  sources: ['sidecar/control/settings.ts', 'webhook/admission/settings.ts'],
  seeds: [
    { environment: ENVIRONMENT_SEED },
    { injection: INJECTION_SEED },
    {
      injection: {
        image: 'x',
        issuerUrl: 'https://[fd00::1]',
        issuerName: 'a',
        policySource: { kind: 'directory', hostPath: '/p' },
      },
    },
  ],
  words: [
    ',',
    '/',
    ':',
    '%',
    'https://',
    '::1',
    '010',
    '/33',
    '::ffff:10.0.0.0/100',
    'fe80::1%eth0',
    'directory:/p',
    ' ',
  ],
  check(input) {
    const value = unfold(input)
    const { environment, injection } = isObject(value) ? value : {}
    if (injection !== undefined) return checkWebhook(injection)
    const entries = Object.entries(isObject(environment) ? environment : {}).map(([name, text]): [string, string] => [
      name,
      textOf(text),
    ])
    return checkSidecar(Object.fromEntries(entries))
  },
})
