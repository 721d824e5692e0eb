/**
 * Lives in one network namespace as an unprivileged process and does there what the lab's process asks for
 * (agent-protocol.ts), so that a measurement does not pay for the start of a process. Ends with its channel.
 */
import { readFileSync } from 'node:fs'
import type { AgentAnswers, AgentRequest } from './agent-protocol.ts'
import { burst, httpGet, measureConnect, type OpenConnection, openConnection, reach, transfer } from './attempts.ts'
import { answerChannel } from './channel.ts'
import { servedConnections, startServer } from './server.ts'

const connections = new Map<string, OpenConnection>()
const LISTEN = '0A' // TCP_LISTEN of include/net/tcp_states.h

function listeningPorts(): number[] {
  const ports = new Set<number>()
  for (const file of ['/proc/self/net/tcp', '/proc/self/net/tcp6']) {
    let text = ''
    try {
      text = readFileSync(file, 'utf8')
    } catch {
      continue // a kernel without IPv6
    }
    for (const line of text.split('\n').slice(1)) {
      const [, local, , state] = line.trim().split(/\s+/)
      if (state === LISTEN && local !== undefined)
        ports.add(Number.parseInt(local.slice(local.lastIndexOf(':') + 1), 16))
    }
  }
  return [...ports].sort((a, b) => a - b)
}

async function endOf(connection: string, timeoutMs: number): Promise<AgentAnswers['ended']> {
  const open = connections.get(connection)
  if (open === undefined) throw new Error(`no connection ${connection}`)
  const late = new Promise<never>((_, reject) => {
    setTimeout(
      () => reject(new Error(`connection ${connection} still stands after ${timeoutMs} ms`)),
      timeoutMs,
    ).unref()
  })
  return await Promise.race([open.ended, late])
}

async function perform(request: AgentRequest): Promise<AgentAnswers[keyof AgentAnswers]> {
  switch (request.do) {
    case 'serve':
      await Promise.all(request.ports.map((port) => startServer(port, request.name)))
      return null
    case 'reach':
      return await reach(request.target, request.timeoutMs)
    case 'burst':
      return await burst(request.target, request.count, request.timeoutMs)
    case 'measure': {
      const times: number[] = []
      for (let index = 0; index < request.count; index++) times.push(await measureConnect(request.target))
      return times
    }
    case 'open': {
      const open = await openConnection(request.target)
      connections.set(request.connection, open)
      return open.reached
    }
    case 'ended':
      return await endOf(request.connection, request.timeoutMs)
    case 'transfer':
      return { milliseconds: await transfer(request.target, request.bytes) }
    case 'httpGet':
      return await httpGet(request.address, request.port, request.path, request.timeoutMs)
    case 'listening':
      return listeningPorts()
    case 'served':
      return servedConnections()
  }
}

answerChannel(perform)
// An application's process outlives a broken connection.
process.on('uncaughtException', (error) => console.error(error))
