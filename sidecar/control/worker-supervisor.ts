/** Keeps the packet path's thread running: starts it, starts it again when it dies, and tells it all it has to know. */
import { Worker } from 'node:worker_threads'
import type { FromWorker, ToWorker, WorkerData } from '../datapath/messages.ts'
import { close } from '../netlink/libc.ts'
import { wakeQueueSocket } from '../netlink/queue-socket.ts'
import type { LogSink } from './log.ts'

export interface WorkerSupervisorOptions {
  readonly script: URL
  readonly data: () => WorkerData
  /** Everything that a fresh worker must hear first. */
  readonly briefing: () => readonly ToWorker[]
  readonly onMessage: (message: FromWorker) => void
  readonly onRestart: () => void
  readonly log: LogSink
}

export interface WorkerSupervisor {
  /** True while the worker holds the queues. */
  bound(): boolean
  /** Resolves once a worker held the queues: before, the kernel drops what is queued, this process's own SYNs too. */
  readonly firstBound: Promise<void>
  tell(message: ToWorker): void
  /** Counts the workers so far: their counters start anew. */
  generation(): number
  /** Ends the worker and starts no other; what waits in the queues is dropped. */
  stop(): Promise<void>
}

/** A worker that dies at once does so for a reason that stays a while: no tight loop. */
const RESTART_MILLISECONDS = 250

export function startWorker(options: WorkerSupervisorOptions): WorkerSupervisor {
  let worker: Worker | undefined
  let queueFd: number | undefined
  let rawFds: readonly number[] = []
  let generation = 0
  let stopped = false
  const { promise: firstBound, resolve: onBound } = Promise.withResolvers<void>()

  function start(): void {
    generation++
    const started = new Worker(options.script, { workerData: options.data() })
    worker = started
    started.on('message', (message: FromWorker) => {
      if (message.type === 'bound') {
        queueFd = message.queueFd
        rawFds = message.rawFds
        for (const told of options.briefing()) tell(told)
        onBound()
      }
      options.onMessage(message)
    })
    started.on('error', (error) => options.log.error({ error: String(error) }, 'data path worker died'))
    started.on('exit', () => {
      if (worker !== started) return
      worker = undefined
      // Descriptors belong to the process: the dead thread's socket would keep the queues. They are closed here and
      // not there, so that a wake-up never meets a number that something else has by now.
      for (const fd of [...(queueFd === undefined ? [] : [queueFd]), ...rawFds]) close(fd)
      queueFd = undefined
      rawFds = []
      if (stopped) return
      options.onRestart()
      setTimeout(start, RESTART_MILLISECONDS)
    })
  }

  function tell(message: ToWorker): void {
    // Until it is bound the briefing waits for it, with all of this.
    if (worker === undefined || queueFd === undefined) return
    worker.postMessage(message)
    wakeQueueSocket(queueFd)
  }

  async function stop(): Promise<void> {
    stopped = true
    await worker?.terminate()
  }

  start()
  return { bound: () => queueFd !== undefined, firstBound, tell, generation: () => generation, stop }
}
