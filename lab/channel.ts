import type { ChildProcess } from 'node:child_process'
import { LabError } from './errors.ts'

/** Requests by their `do`, answered over a child's IPC channel; a child answers each id once. */
export interface Channel<Request extends { readonly do: string }, Answers extends Record<Request['do'], unknown>> {
  readonly pid: number
  /** Throws `lab-agent-gone` when the child ends first, or an Error with the child's words. */
  ask<R extends Request>(request: R): Promise<Answers[R['do']]>
}

export type ChannelMessage =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string; readonly code?: string }

interface Pending {
  readonly resolve: (value: never) => void
  readonly reject: (error: Error) => void
}

/** The asking end; `what` names the child in errors. */
export function createChannel<Request extends { readonly do: string }, Answers extends Record<Request['do'], unknown>>(
  child: ChildProcess,
  what: string,
): Channel<Request, Answers> {
  const pending = new Map<number, Pending>()
  let nextId = 1
  let gone: LabError | undefined
  child.on('message', (message: ChannelMessage) => {
    const waiting = pending.get(message.id)
    pending.delete(message.id)
    if (!('error' in message)) waiting?.resolve(message.value as never)
    else if (message.code === 'lab-admission') waiting?.reject(new LabError(message.code, message.error))
    else waiting?.reject(new Error(`${what}: ${message.error}`))
  })
  const end = (how: string) => {
    gone ??= new LabError('lab-agent-gone', `${what} ended (${how})`)
    for (const { reject } of pending.values()) reject(gone)
    pending.clear()
  }
  child.once('error', (error) => end(error.message))
  child.once('exit', (code, signal) => end(`${signal ?? `status ${code}`}`))
  return {
    pid: child.pid ?? 0,
    ask(request) {
      return new Promise((resolve, reject) => {
        if (gone !== undefined) return reject(gone)
        const id = nextId++
        pending.set(id, { resolve, reject })
        child.send({ id, request }, (error) => {
          if (error !== null) end(error.message)
        })
      })
    },
  }
}

/** The answering end, in the child: performs what is asked and ends with the channel. */
export function answerChannel<Request>(perform: (request: Request) => Promise<unknown>): void {
  const answer = (message: ChannelMessage) => process.send?.(message, undefined, undefined, () => undefined)
  process.on('message', ({ id, request }: { id: number; request: Request }) => {
    perform(request).then(
      (value) => answer({ id, value: value ?? null }),
      (error: unknown) => {
        const code = error instanceof LabError ? { code: error.code } : {}
        answer({ id, error: error instanceof Error ? error.message : String(error), ...code })
      },
    )
  })
  process.on('disconnect', () => process.exit(0))
}
