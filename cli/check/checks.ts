import { ADMISSION_CHECKS } from './checks/admission.ts'
import { CERTIFICATE_CHECKS } from './checks/certificates.ts'
import { CLUSTER_CHECKS } from './checks/cluster.ts'
import { INSTALLATION_CHECKS } from './checks/installation.ts'
import { NAMESPACE_CHECKS } from './checks/namespaces.ts'
import { PATH_CHECKS } from './checks/paths.ts'
import { ROTATION_CHECKS } from './checks/rotation.ts'
import { RUN_CHECKS } from './checks/run.ts'
import { SIDECAR_CHECKS } from './checks/sidecars.ts'
import type { Facts } from './facts.ts'
import type { Check, Finding } from './finding.ts'
import { stateOf } from './installation.ts'

/** Every check, in the order in which they are printed: what others depend on comes first. */
export const CHECKS: readonly Check[] = [
  ...CLUSTER_CHECKS,
  ...INSTALLATION_CHECKS,
  ...ADMISSION_CHECKS,
  ...CERTIFICATE_CHECKS,
  ...ROTATION_CHECKS,
  ...NAMESPACE_CHECKS,
  ...SIDECAR_CHECKS,
  ...PATH_CHECKS,
  ...RUN_CHECKS,
]

/** What all checks find; before an installation those that need one say nothing. */
export function judge(facts: Facts): readonly Finding[] {
  const isAbsent = stateOf(facts.installation) === 'absent'
  return CHECKS.filter(({ needsInstallation }) => needsInstallation !== true || !isAbsent).flatMap(({ name, run }) =>
    run(facts).map((found) => ({ check: name, ...found })),
  )
}
