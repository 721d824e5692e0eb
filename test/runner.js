import TestRunner from 'jest-runner'

/**
 * Runs test files in two lines side by side. Those that load all processors they find stand in one line and run one
 * after the other, in the order given. All others, which mostly wait for something, run several at once: as many as
 * jest's `maxWorkers`, those that take longest first.
 *
 * Options: `loading` and `longest`, endings of paths without `.test.ts`.
 */
export default class TwoLineRunner extends TestRunner {
  #loading
  #rank

  constructor(globalConfig, context, { loading, longest }) {
    super(globalConfig, context)
    const find = (endings, path) => endings.findIndex((ending) => path.endsWith(`/${ending}.test.ts`))
    const rank = (endings, path) => (find(endings, path) < 0 ? endings.length : find(endings, path))
    this.#rank = { loading: ({ path }) => rank(loading, path), longest: ({ path }) => rank(longest, path) }
    this.#loading = ({ path }) => find(loading, path) >= 0
    this.oneByOne = new TestRunner({ ...globalConfig, maxWorkers: 1 }, context)
  }

  on(eventName, listener) {
    const stops = [super.on(eventName, listener), this.oneByOne.on(eventName, listener)]
    return () => {
      for (const stop of stops) stop()
    }
  }

  /** Overrides jest-runner's; `serial` is set where there is one file, or one worker. */
  async runTests(tests, watcher, options) {
    const by = (rank) => (a, b) => rank(a) - rank(b)
    const loading = tests.filter(this.#loading).sort(by(this.#rank.loading))
    const others = tests.filter((test) => !this.#loading(test)).sort(by(this.#rank.longest))
    if (options.serial || loading.length === 0) return await super.runTests([...others, ...loading], watcher, options)
    await Promise.all([
      this.oneByOne.runTests(loading, watcher, options),
      ...(others.length > 0 ? [super.runTests(others, watcher, options)] : []),
    ])
  }
}
