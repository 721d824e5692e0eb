import { describeCluster } from '../../contract/cluster.ts'
import { createMemoryStage } from '../../contract/stage.ts'

describeCluster('the cluster in memory', async () => createMemoryStage())
