/** Jest runs the TypeScript sources as native ES modules; @swc/jest only strips the types. */
export default {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/{unit,fuzz,netns,soak,apiserver}/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2024', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
  runner: [
    '<rootDir>/test/runner.js',
    {
      loading: [
        'test/netns/exhaustion/floods',
        'test/netns/connections/setup',
        'test/soak/soak',
        'test/netns/bench',
        'test/netns/limits/limits',
        'test/netns/changes',
        'test/netns/exhaustion/resolver',
        'test/netns/exhaustion/kernel',
      ],
      waiting: [
        'test/apiserver/rotation',
        'test/netns/exhaustion/half-closed',
        'test/apiserver/rotation-crashes',
        'test/apiserver/certs-replicas',
      ],
      longest: [
        'test/netns/connections/rotation',
        'test/netns/evasion/egress',
        'test/netns/exhaustion/issuer',
        'test/netns/connections/meetings',
      ],
    },
  ],
  globalSetup: '<rootDir>/test/set-up.js',
  globalTeardown: '<rootDir>/test/tear-down.js',
  maxWorkers: 3,
  // node-forge makes RSA keys in JavaScript, which takes a busy machine a while.
  testTimeout: 60_000,
}
