import { describeSidecar } from '../../contract/sidecar.ts'
import { createMemoryStage } from '../../contract/stage.ts'

describeSidecar('the sidecar at the webhook of a cluster in memory', async () => createMemoryStage())
