import { afterAll, beforeAll } from '@jest/globals'
import { describeCluster } from '../contract/cluster.ts'
import { describeSidecar } from '../contract/sidecar.ts'
import { CONTROL_PLANE_TIMEOUT_MS, type ControlPlane, startControlPlane } from './control-plane.ts'
import { createApiStage } from './stage.ts'

let control: ControlPlane
beforeAll(async () => {
  control = await startControlPlane()
}, CONTROL_PLANE_TIMEOUT_MS)
afterAll(() => control?.stop(), CONTROL_PLANE_TIMEOUT_MS)

describeCluster('the cluster of an API server', async () => createApiStage(control.admin))

describeSidecar('the sidecar at the webhook of an API server', async () => createApiStage(control.admin))
