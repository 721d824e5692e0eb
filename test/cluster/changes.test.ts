/**
 * What changes while connections run, from the write at the API server to what programs see: new connections and those that
 * run, at both ends. Prints the figures.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { awaitGuarded, cleanUp, install, OWNS_NODE } from './installation.ts'
import { apply, kubectl, startKubectl, until } from './kubectl.ts'
import { deployment, GUARDED, namespace, podSpec, policy, sleeper } from './objects.ts'
import { addressOf, awaitRollouts, firstPod } from './pods.ts'

const AT = 'changing'
const PEERS = 'changing-peers'
const ROUNDS = 5
const HELD = 20
/** Seconds from the write until it holds; ten times as much fails. */
const TARGET = { policies: 1, labels: 2, modes: 2 }
const FACTOR = 10

/** Echoes on 8080, and on 9000 where the end of each connection is logged. */
const SERVER = `
const net = require('node:net')
const serve = (port, onEnd) => net.createServer((socket) => {
  const { remotePort: from } = socket
  socket.pipe(socket)
  socket.on('error', () => {})
  socket.on('close', () => onEnd({ what: 'ended', at: Date.now(), from }))
}).listen(port, '::')
serve(8080, () => {})
serve(9000, (event) => console.log(JSON.stringify(event)))
`

/** Asks 8080 fifty times a second and logs each change of what comes of it; holds connections to 9000 and logs their ends. */
const CLIENT = `
const net = require('node:net')
const [host, held] = [process.argv[1], Number(process.argv[2])]
const log = (event) => console.log(JSON.stringify({ at: Date.now(), ...event }))
let last
function ask() {
  const socket = net.connect(8080, host)
  let isDone = false
  const done = (what) => {
    if (!isDone && what !== last) log({ what })
    if (!isDone) last = what
    isDone = true
    socket.destroy()
  }
  socket.setTimeout(1000, () => done('refused'))
  socket.on('connect', () => socket.write('x')).on('data', () => done('answered')).on('error', () => done('refused'))
}
setInterval(ask, 20)
function hold() {
  const socket = net.connect(9000, host)
  let from, timer, sent = '', heard = ''
  socket.on('connect', () => {
    from = socket.localPort
    log({ what: 'held', from })
    timer = setInterval(() => {
      sent += 'x'
      socket.write('x')
    }, 50)
  })
  socket.on('data', (bytes) => (heard += bytes))
  socket.on('error', () => {})
  socket.on('close', () => {
    clearInterval(timer)
    if (from !== undefined) log({ what: 'ended', from, sent: sent.length, heard: heard.length })
    setTimeout(hold, 200)
  })
}
for (let index = 0; index < held; index++) hold()
`

interface Event {
  readonly what: 'answered' | 'refused' | 'held' | 'ended'
  readonly at: number
  readonly from?: number
}

const program = (...command: string[]) => sleeper({ image: 'debnode:local', command: ['node', '-e', ...command] })
const ownNode = OWNS_NODE ? describe : describe.skip
const figures: Record<string, string> = {}

async function eventsOf(at: string, app: string, since: number): Promise<Event[]> {
  const text = await kubectl('-n', at, 'logs', `deployment/${app}`, '-c', 'app')
  const events = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Event]))
  return events.filter((event) => event.at >= since)
}

ownNode('changes on the live cluster', () => {
  let api: ReturnType<typeof startKubectl>
  let base = ''
  let startedAt = 0

  /** Resolves to when the request was sent, in milliseconds since 1970. */
  async function write(method: string, path: string, body?: object): Promise<number> {
    const at = Date.now()
    const headers = { 'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json' }
    const response = await fetch(`${base}${path}`, { method, headers, ...(body && { body: JSON.stringify(body) }) })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    await response.arrayBuffer()
    return at
  }

  /** Seconds from `since` until new connections of that client come to `what`. */
  async function secondsUntil(what: Event['what'], since: number, at = AT, app = 'changing'): Promise<number> {
    const event = await until(`connections to be ${what}`, async () => {
      const events = await eventsOf(at, app, since)
      const found = events.find((one) => one.what === what)
      if (found === undefined) throw new Error(`There is ${JSON.stringify(events.slice(-2))}.`)
      return found
    })
    return (event.at - since) / 1_000
  }

  /** The seconds of each round of a change and of its taking back. */
  async function measure(name: string, target: number, change: () => Promise<number>, back: () => Promise<number>) {
    const seconds: Record<'refused' | 'answered', number[]> = { refused: [], answered: [] }
    for (let round = 0; round < ROUNDS; round++) {
      seconds.refused.push(await change())
      seconds.answered.push(await back())
    }
    for (const [effect, values] of Object.entries(seconds)) {
      const sorted = values.toSorted((a, b) => a - b)
      const [least, median, most] = [sorted[0], sorted[ROUNDS >> 1], sorted.at(-1)].map((value) => value?.toFixed(2))
      figures[`${name}, ${effect}`] = `${median} s (${least} to ${most})`
      expect(Math.max(...values)).toBeLessThan(target * FACTOR)
    }
  }

  const policies = `/apis/networking.k8s.io/v1/namespaces/${AT}/networkpolicies`
  const admitting = (from: readonly object[]) =>
    policy(AT, 'server', {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [{ from }],
    })
  const role = (value: string) => ({ podSelector: { matchLabels: { role: value } } })
  const STAYS = { podSelector: { matchLabels: { app: 'staying' } } }

  beforeAll(async () => {
    await install()
    await apply(namespace(AT, GUARDED), namespace(PEERS, { ...GUARDED, tier: 'front' }))
    await awaitGuarded(AT)
    await awaitGuarded(PEERS)
    await apply(deployment(AT, 'server', podSpec(program(SERVER))))
    await awaitRollouts(AT, 'server')
    const address = await addressOf(AT, 'server')
    const client = podSpec(program(CLIENT, address, String(HELD)))
    await apply(
      deployment(AT, 'changing', client),
      deployment(AT, 'staying', client),
      deployment(PEERS, 'peer', client),
    )
    await awaitRollouts(AT, 'changing', 'staying')
    await awaitRollouts(PEERS, 'peer')
    api = startKubectl(['proxy', '--port=0'])
    base = await until('kubectl proxy', async () => {
      const [, found] = /serve on (\S+)/.exec(api.said()) ?? []
      return found && `http://${found}`
    })
    startedAt = Date.now()
  })
  afterAll(async () => {
    const lines = Object.entries(figures).map(([name, text]) => `${name}: ${text}`)
    process.stderr.write(`${lines.join('\n')}\n`)
    await api?.stop()
    await cleanUp([AT, PEERS])
  })

  it('a policy made and removed: new connections follow, and those that run end at both ends', async () => {
    const ends: Record<'client' | 'server', number[]> = { client: [], server: [] }
    await measure(
      'a policy',
      TARGET.policies,
      async () => {
        const before = await eventsOf(AT, 'changing', 0)
        const ended = new Set(before.filter(({ what }) => what === 'ended').map(({ from }) => from))
        const ports = before.flatMap(({ what, from }) => (what === 'held' && from && !ended.has(from) ? [from] : []))
        expect(ports.length).toBe(HELD)
        const at = await write('POST', policies, admitting([STAYS]))
        const seconds = await secondsUntil('refused', at)
        for (const end of ['client', 'server'] as const) {
          const found = await until(`connections to have ended at the ${end}`, async () => {
            const events = await eventsOf(AT, end === 'client' ? 'changing' : 'server', at)
            const of = events.filter(({ what, from }) => what === 'ended' && from !== undefined && ports.includes(from))
            return of.length === HELD && of
          })
          ends[end].push(Math.max(...found.map((event) => event.at - at)) / 1_000)
        }
        return seconds
      },
      async () => {
        const seconds = await secondsUntil('answered', await write('DELETE', `${policies}/server`))
        await until('connections to be held again', async () => {
          const events = await eventsOf(AT, 'changing', 0)
          const count = (wanted: string) => events.filter(({ what }) => what === wanted).length
          return count('held') - count('ended') === HELD
        })
        return seconds
      },
    )
    for (const [end, values] of Object.entries(ends)) {
      figures[`running connections ended at the ${end}, the last of ${HELD}`] =
        `${Math.max(...values).toFixed(2)} s at most`
      expect(Math.max(...values)).toBeLessThan(TARGET.policies * FACTOR)
    }
  })

  it('a Pod’s label', async () => {
    const { metadata } = await firstPod(AT, 'changing')
    const pod = `/api/v1/namespaces/${AT}/pods/${metadata?.name}`
    const label = (value: string) => write('PATCH', pod, { metadata: { labels: { role: value } } })
    await label('front')
    await write('POST', policies, admitting([STAYS, role('front')]))
    await measure(
      'a Pod’s label',
      TARGET.labels,
      async () => await secondsUntil('refused', await label('back')),
      async () => await secondsUntil('answered', await label('front')),
    )
    await write('DELETE', `${policies}/server`)
  })

  it('a namespace’s label', async () => {
    const label = (tier: string) => write('PATCH', `/api/v1/namespaces/${PEERS}`, { metadata: { labels: { tier } } })
    const from = { namespaceSelector: { matchLabels: { tier: 'front' } } }
    await write('POST', policies, admitting([STAYS, { podSelector: { matchLabels: { app: 'changing' } } }, from]))
    await measure(
      'a namespace’s label',
      TARGET.labels,
      async () => await secondsUntil('refused', await label('back'), PEERS, 'peer'),
      async () => await secondsUntil('answered', await label('front'), PEERS, 'peer'),
    )
    await write('DELETE', `${policies}/server`)
  })

  it('a namespace’s mode', async () => {
    const annotate = (mode: string) =>
      write('PATCH', `/api/v1/namespaces/${AT}`, { metadata: { annotations: { 'synguard.io/mode': mode } } })
    await annotate('audit')
    await write('POST', policies, admitting([STAYS]))
    await measure(
      'a namespace’s mode',
      TARGET.modes,
      async () => await secondsUntil('refused', await annotate('enforce')),
      async () => await secondsUntil('answered', await annotate('audit')),
    )
    await write('DELETE', `${policies}/server`)
  })

  it('none of this ended a connection that was allowed all the time, or lost a byte of it', async () => {
    const events = await eventsOf(AT, 'staying', startedAt)
    expect(events).toEqual([])
    const server = await kubectl('-n', AT, 'logs', 'deployment/staying', '-c', 'app')
    expect(server.split('\n').filter((line) => line.includes('"held"')).length).toBe(HELD)
  })
})
