import { relative } from 'node:path'
import TestRunner from 'jest-runner'

/** More failed files than these are no accident of timing. */
const MOST_SECOND_TRIES = 6
/** They wait, but each has an API server that does not. */
const WAITING_WORKERS = 2

/**
 * Runs test files in three lines side by side. Those that load all processors they find stand in one line and run one
 * after the other, in the order given. Those that wait for minutes run two at a time from the beginning. All others run
 * several at once: as many as jest's `maxWorkers`, those that take longest first. A few files that failed beside others run once more at the end,
 * with the machine to themselves, and that counts: what real networks do in a given time depends on what else runs.
 * Each is named on stderr as `unsteady`, whatever comes of it.
 *
 * Options: `loading`, `waiting` and `longest`, endings of paths without `.test.ts`.
 */
export default class ThreeLineRunner extends TestRunner {
  #lineOf
  #rank
  /** Of each test file that failed beside others: what jest is not told yet. */
  #heldBack = new Map()
  #holdsBack = false

  constructor(globalConfig, context, { loading, waiting, longest }) {
    super(globalConfig, context)
    const find = (endings, path) => endings.findIndex((ending) => path.endsWith(`/${ending}.test.ts`))
    const rank = (endings, path) => (find(endings, path) < 0 ? endings.length : find(endings, path))
    this.#rank = { loading: ({ path }) => rank(loading, path), longest: ({ path }) => rank(longest, path) }
    this.#lineOf = ({ path }) =>
      find(loading, path) >= 0 ? 'loading' : find(waiting, path) >= 0 ? 'waiting' : 'others'
    this.oneByOne = new TestRunner({ ...globalConfig, maxWorkers: 1 }, context)
    this.twoAtATime = new TestRunner({ ...globalConfig, maxWorkers: WAITING_WORKERS }, context)
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
    const stops = [super.on(eventName, hear), this.oneByOne.on(eventName, hear), this.twoAtATime.on(eventName, hear)]
    return () => {
      for (const stop of stops) stop()
    }
  }

  /** Overrides jest-runner's; `serial` is set where there is one file, or one worker. */
  async runTests(tests, watcher, options) {
    const by = (rank) => (a, b) => rank(a) - rank(b)
    const lines = { loading: [], waiting: [], others: [] }
    for (const test of tests) lines[this.#lineOf(test)].push(test)
    const { waiting } = lines
    const loading = lines.loading.sort(by(this.#rank.loading))
    const others = lines.others.sort(by(this.#rank.longest))
    if (options.serial) return await super.runTests([...waiting, ...others, ...loading], watcher, options)
    this.#holdsBack = true
    await Promise.all([
      ...(loading.length > 0 ? [this.oneByOne.runTests(loading, watcher, options)] : []),
      ...(waiting.length > 0 ? [this.twoAtATime.runTests(waiting, watcher, options)] : []),
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
