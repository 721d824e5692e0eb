import { relative } from 'node:path'
import TestRunner from 'jest-runner'

/** More failed files than these are no accident of timing. */
const MOST_SECOND_TRIES = 4

/**
 * Runs test files in two lines side by side. Those that load all processors they find stand in one line and run one
 * after the other, in the order given. All others, which mostly wait for something, run several at once: as many as
 * jest's `maxWorkers`, those that take longest first. A few files that failed beside others run once more at the end,
 * with the machine to themselves, and that counts: what real networks do in a given time depends on what else runs.
 * Each is named on stderr as `unsteady`, whatever comes of it.
 *
 * Options: `loading` and `longest`, endings of paths without `.test.ts`.
 */
export default class TwoLineRunner extends TestRunner {
  #loading
  #rank
  /** Of each test file that failed beside others: what jest is not told yet. */
  #heldBack = new Map()
  #holdsBack = false

  constructor(globalConfig, context, { loading, longest }) {
    super(globalConfig, context)
    const find = (endings, path) => endings.findIndex((ending) => path.endsWith(`/${ending}.test.ts`))
    const rank = (endings, path) => (find(endings, path) < 0 ? endings.length : find(endings, path))
    this.#rank = { loading: ({ path }) => rank(loading, path), longest: ({ path }) => rank(longest, path) }
    this.#loading = ({ path }) => find(loading, path) >= 0
    this.oneByOne = new TestRunner({ ...globalConfig, maxWorkers: 1 }, context)
  }

  on(eventName, listener) {
    const hear = (event) => {
      const [test, result] = event
      const failed =
        eventName === 'test-file-failure' ||
        (eventName === 'test-file-success' && (result.numFailingTests > 0 || result.testExecError !== undefined))
      if (!failed || !this.#holdsBack) return listener(event)
      this.#heldBack.set(test, { result, tell: () => listener(event) })
    }
    const stops = [super.on(eventName, hear), this.oneByOne.on(eventName, hear)]
    return () => {
      for (const stop of stops) stop()
    }
  }

  /** Overrides jest-runner's; `serial` is set where there is one file, or one worker. */
  async runTests(tests, watcher, options) {
    const by = (rank) => (a, b) => rank(a) - rank(b)
    const loading = tests.filter(this.#loading).sort(by(this.#rank.loading))
    const others = tests.filter((test) => !this.#loading(test)).sort(by(this.#rank.longest))
    if (options.serial) return await super.runTests([...others, ...loading], watcher, options)
    this.#holdsBack = true
    await Promise.all([
      ...(loading.length > 0 ? [this.oneByOne.runTests(loading, watcher, options)] : []),
      ...(others.length > 0 ? [super.runTests(others, watcher, options)] : []),
    ])
    this.#holdsBack = false
    if (this.#heldBack.size > MOST_SECOND_TRIES) for (const { tell } of this.#heldBack.values()) await tell()
    else if (this.#heldBack.size > 0) await this.#tryAgain(watcher, options)
  }

  async #tryAgain(watcher, options) {
    for (const [{ path }, { result }] of this.#heldBack) {
      for (const what of describeFailures(result)) process.stderr.write(`unsteady: ${relative('', path)}: ${what}\n`)
    }
    await this.oneByOne.runTests([...this.#heldBack.keys()], watcher, options)
  }
}

function describeFailures({ testResults = [], failureMessage, message }) {
  const failed = testResults.filter(({ status }) => status === 'failed')
  if (failed.length === 0) return [failureMessage ?? message]
  return failed.map(({ fullName, failureMessages }) => [fullName, ...failureMessages].join('\n'))
}
