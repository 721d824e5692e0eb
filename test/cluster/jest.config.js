/** The tests that need a whole cluster: `npm run test:cluster`, which starts one, and never `npm test`. */
import base from '../../jest.config.js'

/** What every change has to hold; the rest is for a night. */
const CORE = ['quick-start', 'workloads', 'check', 'admission-policies']
const isFull = process.env.SYNGUARD_CLUSTER_TESTS === 'full'
const { testEnvironment, extensionsToTreatAsEsm, transform } = base

// biome-ignore lint/style/noDefaultExport: jest asks for it.
export default {
  testEnvironment,
  extensionsToTreatAsEsm,
  transform,
  rootDir: '../..',
  testMatch: isFull
    ? ['<rootDir>/test/cluster/*.test.ts']
    : CORE.map((name) => `<rootDir>/test/cluster/${name}.test.ts`),
  // One cluster, one installation.
  maxWorkers: 1,
  // What a busy machine takes for a rollout; nothing here waits that long where all is well.
  testTimeout: 180_000,
}
