import type { Facts } from '../facts.ts'
import { known } from '../facts.ts'
import { type Check, count, type Found, mend, note, notSeen, ofSeen, ok } from '../finding.ts'
import { stateOf } from '../installation.ts'

const APPLY = 'kubectl apply -k manifests/base (docs/install.md)'

function checkInstalled({ installation }: Facts): readonly Found[] {
  const { namespace, configurations, deployment } = installation
  const state = stateOf(installation)
  if (state === 'absent') return [note('Synguard is not installed', APPLY)]
  if (state === 'unknown') {
    const reasons = [configurations, deployment].flatMap((fact) => (fact.seen ? [] : [fact.reason]))
    return [notSeen('whether Synguard is installed', reasons.join(', '))]
  }
  const found = known(configurations)
  if (found !== undefined && found.length > 1) {
    const names = found.map(({ metadata }) => metadata?.name).join(' and ')
    return [mend(`${names} are webhook configurations of Synguard both`, 'delete the one that nothing answers for')]
  }
  if (found?.length === 0) return [mend('no webhook configuration is there, so no Pod is guarded', APPLY)]
  if (deployment.seen && deployment.value === undefined) {
    const message = `a webhook configuration is there, but no Deployment in ${namespace}: labelled namespaces get no Pods`
    const isOutside = found?.[0]?.webhooks?.every(({ clientConfig }) => clientConfig.url !== undefined) === true
    return isOutside ? [ok('the webhook runs outside of the cluster')] : [mend(message, APPLY)]
  }
  const image = known(deployment)?.spec?.template.spec?.containers[0]?.image
  return [ok(`in namespace ${namespace}${image === undefined ? '' : `, webhook ${image}`}`)]
}

function checkSettings({ installation }: Facts): readonly Found[] {
  return ofSeen('the settings', installation.settings, (settings) => {
    if (settings.kind === 'wrong') {
      return [mend(`the settings are wrong: ${settings.problem}`, 'correct them and apply them again')]
    }
    const { key, value } = settings.label
    const label = value === undefined ? key : `${key}=${value}`
    return [ok(`namespaces with ${label} get ${settings.injection?.image ?? 'the sidecar'}`)]
  })
}

function checkReplicas({ installation }: Facts): readonly Found[] {
  const { namespace } = installation
  return ofSeen('the Deployment', installation.deployment, (deployment) => {
    if (deployment === undefined) return []
    const { readyReplicas = 0 } = deployment.status ?? {}
    const wanted = deployment.spec?.replicas ?? 1
    const message = `${readyReplicas} of ${count(wanted, 'replica')} ready`
    const fix = `kubectl -n ${namespace} describe pods -l app.kubernetes.io/name=synguard-webhook`
    return [readyReplicas < wanted || wanted === 0 ? mend(message, fix) : ok(message)]
  })
}

function checkEndpoints({ installation }: Facts): readonly Found[] {
  const { namespace, service, webhookService, configurations } = installation
  const isOutside = known(configurations)?.[0]?.webhooks?.every(({ clientConfig }) => clientConfig.url !== undefined)
  if (isOutside === true) return []
  return ofSeen(`Service ${namespace}/${service}`, webhookService, (found) => {
    if (found === undefined) return [mend(`there is no Service ${namespace}/${service}`, APPLY)]
    return ofSeen(`the endpoints of ${namespace}/${service}`, installation.endpoints, (slices) => {
      const all = slices.flatMap(({ endpoints }) => endpoints ?? [])
      const ready = all.filter(({ conditions }) => conditions?.ready !== false)
      const { clusterIP } = found.spec ?? {}
      if (ready.length > 0) return [ok(`Service ${clusterIP} leads to ${count(ready.length, 'ready replica')}`)]
      return [mend(`Service ${clusterIP} leads nowhere`, `kubectl -n ${namespace} get pods,endpointslices`)]
    })
  })
}

export const INSTALLATION_CHECKS: readonly Check[] = [
  { name: 'installed', run: checkInstalled },
  { name: 'settings', needsInstallation: true, run: checkSettings },
  { name: 'replicas', needsInstallation: true, run: checkReplicas },
  { name: 'service', needsInstallation: true, run: checkEndpoints },
]
