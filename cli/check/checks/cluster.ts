import type { V1Node } from '@kubernetes/client-node'
import type { Facts } from '../facts.ts'
import { type Check, count, type Found, listNames, mend, note, ofSeen, ok } from '../finding.ts'

/** Kubernetes 1.30: ValidatingAdmissionPolicy is v1, native sidecars and status.hostIPs are on without a feature gate. */
const LEAST_MINOR = 30
const RESOURCES = ['mutatingwebhookconfigurations', 'validatingadmissionpolicies']

/** The minor of `v1.37.2` or `v1.29.4-eks-036c24b`; undefined where it is no version 1. */
function minorOf(version: string): number | undefined {
  const minor = /^v1\.(\d+)/.exec(version)?.[1]
  return minor === undefined ? undefined : Number(minor)
}

const isOld = (version: string): boolean => (minorOf(version) ?? 0) < LEAST_MINOR

function checkVersion({ cluster }: Facts): readonly Found[] {
  return ofSeen("the API server's version", cluster.version, (version) => [
    isOld(version)
      ? mend(`the API server is ${version}: native sidecars need 1.${LEAST_MINOR}`, 'upgrade the control plane')
      : ok(`the API server is ${version}`),
  ])
}

function checkResources({ cluster }: Facts): readonly Found[] {
  return ofSeen('admissionregistration.k8s.io/v1', cluster.admissionResources, (served) => {
    const missing = RESOURCES.filter((resource) => !served.includes(resource))
    if (missing.length === 0) return [ok('admissionregistration.k8s.io/v1 serves webhooks and policies')]
    return [
      mend(
        `admissionregistration.k8s.io/v1 does not serve ${missing.join(' and ')}`,
        'upgrade the control plane, or take it out of its --runtime-config',
      ),
    ]
  })
}

const nameOf = ({ metadata }: V1Node): string => metadata?.name ?? ''
const isWindows = ({ status }: V1Node): boolean => status?.nodeInfo?.operatingSystem === 'windows'

/** `6.18.5 amd64` */
export function kernelOf({ status }: V1Node): string {
  return `${status?.nodeInfo?.kernelVersion ?? ''} ${status?.nodeInfo?.architecture ?? ''}`.trim()
}

function checkNodes({ cluster }: Facts): readonly Found[] {
  return ofSeen('the nodes', cluster.nodes, (nodes) => {
    const linux = nodes.filter((node) => !isWindows(node))
    const old = linux.filter(({ status }) => isOld(status?.nodeInfo?.kubeletVersion ?? ''))
    const windows = nodes.filter(isWindows)
    const findings: Found[] = []
    if (old.length > 0) {
      const versions = [...new Set(old.map(({ status }) => status?.nodeInfo?.kubeletVersion))].join(', ')
      const names = listNames(old.map(nameOf))
      findings.push(
        mend(`${names}: kubelet ${versions}, and native sidecars need 1.${LEAST_MINOR}`, 'upgrade these nodes'),
      )
    } else if (linux.length === 0) {
      findings.push(note('there is no Linux node'))
    } else {
      const kernels = [...new Set(linux.map(kernelOf))]
      findings.push(ok(`${count(linux.length, 'node')}, kernel ${listNames(kernels, 4)}`))
    }
    if (windows.length > 0) findings.push(note(`${count(windows.length, 'Windows node')}: Pods there are not guarded`))
    return findings
  })
}

export const CLUSTER_CHECKS: readonly Check[] = [
  { name: 'kubernetes', run: checkVersion },
  { name: 'nodes', run: checkNodes },
  { name: 'admission-api', run: checkResources },
]
