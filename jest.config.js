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
  maxWorkers: 2,
  // node-forge makes RSA keys in JavaScript, which takes a busy machine a while.
  testTimeout: 60_000,
}
