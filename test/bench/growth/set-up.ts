/** Set-up time: connect, send a byte, wait for its echo, close by reset; one connection at a time. */
import { runCommand } from '../../../lab/command.ts'
import type { RunningPod } from '../../../lab/pod.ts'
import { connect, ECHO_PORT } from '../load.ts'
import { median, ratioSpread, type Spread } from '../statistics.ts'
import { addressOf, type Field } from './field.ts'

export interface Pair {
  readonly client: RunningPod
  readonly server: RunningPod
}

/** Medians of all rounds' medians, in microseconds, and the ratio of both round by round. */
export interface SetUp {
  readonly plainMicroseconds: number
  readonly guardedMicroseconds: number
  readonly ratio: Spread
}

export interface SetUpOptions {
  readonly rounds: number
  /** In each round, for each of the two. */
  readonly connections: number
}

/** Rounds of plain and guarded in turn, either first as often as the other; some connections before the first warm up. */
async function interleave(options: SetUpOptions, plain: () => Promise<number>, guarded: () => Promise<number>) {
  const [plains, guardeds]: [number[], number[]] = [[], []]
  await plain()
  await guarded()
  for (let round = 0; round < options.rounds; round++) {
    if (round % 2 === 0) plains.push(await plain())
    guardeds.push(await guarded())
    if (round % 2 === 1) plains.push(await plain())
  }
  return {
    plainMicroseconds: median(plains),
    guardedMicroseconds: median(guardeds),
    ratio: ratioSpread(guardeds, plains),
  }
}

/** One client's connections one after the other. Throws where a connection fails. */
export async function measureSetUp(field: Field, plain: Pair, guarded: Pair, options: SetUpOptions): Promise<SetUp> {
  const once = (pair: Pair) => async (): Promise<number> => {
    const target = { client: pair.client, address: addressOf(pair.server), port: ECHO_PORT }
    const { succeeded, echoP50, firstError } = await connect(field.load, target, options.connections, 1)
    if (succeeded !== options.connections) throw new Error(`a connection failed: ${firstError}`)
    return echoP50
  }
  return await interleave(options, once(plain), once(guarded))
}

/** Two clients' connections in turn, so that each comes from another peer than the one before. */
export async function measureTurns(
  field: Field,
  plain: readonly [Pair, Pair],
  guarded: readonly [Pair, Pair],
  options: SetUpOptions,
): Promise<SetUp> {
  const once = (pairs: readonly [Pair, Pair]) => async (): Promise<number> => {
    const names = pairs.map(({ client }) => `/run/netns/${client.network.netns}`)
    const command = ['turns', addressOf(pairs[0].server), String(ECHO_PORT), String(options.connections), ...names]
    const { succeeded, echoP50, firstError } = JSON.parse(await runCommand(field.flows, command))
    if (succeeded !== options.connections) throw new Error(`a connection failed: ${firstError}`)
    return echoP50
  }
  return await interleave(options, once(plain), once(guarded))
}
