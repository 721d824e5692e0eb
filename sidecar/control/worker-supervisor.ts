/** Keeps the packet path's thread running: starts it, starts it again when it dies, and tells it all it has to know. */
import { Worker } from 'node:worker_threads'
import type { FromWorker, ToWorker, WorkerData } from '../datapath/messages.ts'
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
  tell(message: ToWorker): void
  /** Counts the workers so far: their counters start anew. */
  generation(): number
}

/** A worker that dies at once does so for a reason that stays a while: no tight loop. */
const RESTART_MILLISECONDS = 250

export function startWorker(options: WorkerSupervisorOptions): WorkerSupervisor {
  let worker: Worker | undefined
  let fd: number | undefined
  let generation = 0

  function start(): void {
    generation++
    const started = new Worker(options.script, { workerData: options.data() })
    worker = started
    started.on('message', (message: FromWorker) => {
      if (message.type === 'bound') {
        fd = message.fd
        for (const told of options.briefing()) tell(told)
      }
      options.onMessage(message)
    })
    started.on('error', (error) => options.log.error({ error: String(error) }, 'data path worker died'))
    started.on('exit', () => {
      if (worker !== started) return
      worker = undefined
      fd = undefined
      options.onRestart()
      setTimeout(start, RESTART_MILLISECONDS)
    })
  }

  function tell(message: ToWorker): void {
    worker?.postMessage(message)
    if (fd !== undefined) wakeQueueSocket(fd)
  }

  start()
  return { bound: () => fd !== undefined, tell, generation: () => generation }
}
