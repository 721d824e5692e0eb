/** The Pods that are run to find something out. */
import type { V1Container, V1Deployment, V1Pod, V1PodSpec, V1Service } from '@kubernetes/client-node'
import { VOLUME_STATE } from '../../api/names.ts'
import { renderContainers, renderVolumes } from '../../webhook/admission/containers.ts'
import type { InjectionSettings } from '../../webhook/admission/settings.ts'

const SERVER = 'synguard-check-server'
const SERVER_PORT = 8080

/** On a given node whatever its taints; leaves without waiting. */
function specOn(node: string | undefined, fields: Partial<V1PodSpec> & { containers: V1Container[] }): V1PodSpec {
  return {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 0,
    ...(node !== undefined && { nodeName: node, tolerations: [{ operator: 'Exists' }] }),
    ...fields,
  }
}

function renderInit(settings: InjectionSettings): V1Container {
  const rendering = { spec: { containers: [] }, choices: settings.defaults, probePorts: [], cpuLimitRequired: false }
  return renderContainers({ ...rendering, settings })[0]
}

/** The init step as it runs in every guarded Pod, alone: it installs the rules in this Pod's network, and reads them back. */
export function kernelPod(name: string, node: string | undefined, settings: InjectionSettings): V1Pod {
  const volumes = renderVolumes(settings).filter((volume) => volume.name === VOLUME_STATE)
  return { metadata: { name }, spec: specOn(node, { containers: [renderInit(settings)], volumes }) }
}

/** A container of the sidecar's image with a script: Node there is only started with the sidecar's capabilities. */
function scriptContainer(settings: InjectionSettings, script: string, parameters: readonly string[]): V1Container {
  const { command = [], env: _, volumeMounts: __, ...init } = renderInit(settings)
  return { ...init, name: 'check', command: [command[0] ?? 'node', '-e', script, ...parameters] }
}

const SERVER_SCRIPT = `require('node:net').createServer((socket) => {
  socket.on('error', () => {})
  socket.end(socket.remoteAddress)
}).listen(${SERVER_PORT})`

/** Tells everybody who connects by which address it sees them. */
export function serverPod(node: string | undefined, settings: InjectionSettings): V1Pod {
  const container = scriptContainer(settings, SERVER_SCRIPT, [])
  return { metadata: { name: SERVER, labels: { app: SERVER } }, spec: specOn(node, { containers: [container] }) }
}

export function serverService(): V1Service {
  return { metadata: { name: SERVER }, spec: { selector: { app: SERVER }, ports: [{ port: SERVER_PORT }] } }
}

/** Asks each of its parameters, addresses, until it answers; ends with what they said as a termination message. */
const CLIENT_SCRIPT = `const { connect } = require('node:net')
const ask = (host) => new Promise((resolve, reject) => {
  let text = ''
  const socket = connect({ host, port: ${SERVER_PORT}, timeout: 2000 })
  socket.on('data', (chunk) => { text += chunk })
  socket.on('end', () => resolve(text))
  socket.on('timeout', () => socket.destroy(new Error('no answer')))
  socket.on('error', reject)
})
const insist = async (host) => {
  for (let attempt = 1; ; attempt++) {
    try {
      return { seenAs: await ask(host) }
    } catch (error) {
      if (attempt === 20) return { failure: error.code || error.message }
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
  }
}
Promise.all(process.argv.slice(1).map(insist)).then((answers) => {
  require('node:fs').writeFileSync('/dev/termination-log', JSON.stringify(answers))
})`

export function clientPod(
  name: string,
  node: string | undefined,
  settings: InjectionSettings,
  targets: readonly string[],
): V1Pod {
  return { metadata: { name }, spec: specOn(node, { containers: [scriptContainer(settings, CLIENT_SCRIPT, targets)] }) }
}

/** What an application could be, in the webhook's image, whose Node any user may start; it ends at once. */
export function applicationPod(deployment: V1Deployment, settings: InjectionSettings): V1Pod | undefined {
  const [webhook] = deployment.spec?.template.spec?.containers ?? []
  if (webhook?.image === undefined) return undefined
  const container: V1Container = {
    name: 'application',
    image: webhook.image,
    ...(webhook.imagePullPolicy && { imagePullPolicy: webhook.imagePullPolicy }),
    command: [settings.command.init[0] ?? 'node', '--version'],
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '128Mi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      runAsNonRoot: true,
      runAsUser: 65534,
      seccompProfile: { type: 'RuntimeDefault' },
    },
  }
  return { metadata: { name: 'synguard-check-guarded' }, spec: specOn(undefined, { containers: [container] }) }
}
