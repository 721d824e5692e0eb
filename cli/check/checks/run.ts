import type { Facts, KernelFacts } from '../facts.ts'
import { type Check, count, type Found, mend, notSeen, ofSeen, ok } from '../finding.ts'

function judgeKernel({ kernel, node, nodes, run }: KernelFacts): Found {
  const where = `kernel ${kernel} (${count(nodes, 'node')}, tried on ${node})`
  if (run.kind === 'succeeded') return ok(`${where}: takes the rules${run.log === undefined ? '' : `, ${run.log}`}`)
  return mend(`${where}: ${run.reason}`, 'give these nodes what is missing, or keep guarded Pods off them')
}

function checkKernels({ pods }: Facts): readonly Found[] {
  return ofSeen('the features of the kernel', pods.kernels, (kernels) => {
    if (kernels.length === 0) return [notSeen('the features of the kernel', 'no node is ready')]
    return kernels.map(judgeKernel)
  })
}

function checkGuarded({ pods, installation }: Facts): readonly Found[] {
  return ofSeen('whether a guarded Pod starts', pods.guarded, (run) => {
    if (run.kind === 'succeeded') {
      return [ok(`a guarded Pod started, ran and ended within ${Math.ceil(run.seconds)} s`)]
    }
    const fix = `kubectl -n ${installation.namespace} logs deployment/synguard-webhook`
    return [mend(`a guarded Pod does not come up: ${run.reason}`, fix)]
  })
}

export const RUN_CHECKS: readonly Check[] = [
  { name: 'kernel', run: checkKernels },
  { name: 'guarded-pod', needsInstallation: true, run: checkGuarded },
]
