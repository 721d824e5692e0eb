/** What a sidecar asks of a replica, from an address of this machine that stands for its Pod's. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { HEADER_PROOF, HEADER_WIT, type StreamMessage, type VoidEntry } from '../../api/identity.ts'
import { createRequestProof, createTokenProof } from '../../certs/possession.ts'
import { SYSTEM } from './permissions.ts'

export interface IssuerClient {
  /** The identity for a token, or the code of the refusal. */
  identify(token: string, localAddress: string): Promise<HeldIdentity | string>
  /** The stream's first message and all that follow, or the code of the refusal. */
  openStream(identity: HeldIdentity): Promise<OpenStream | string>
  /** The status of a POST with the identity. */
  tell(identity: HeldIdentity, path: string, body: unknown): Promise<number>
}

export interface HeldIdentity {
  readonly wit: string
  readonly privateKey: KeyObject
  readonly localAddress: string
}

export interface OpenStream {
  readonly messages: readonly StreamMessage[]
  /** All void entries so far. */
  voids(): VoidEntry[]
  close(): void
}

const now = () => Math.floor(Date.now() / 1_000)

export function createIssuerClient(port: number, ca: string): IssuerClient {
  const servername = `synguard-webhook.${SYSTEM}.svc`

  function post(path: string, body: unknown, localAddress: string, headers = {}): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const target = {
        host: '127.0.0.1',
        port,
        path,
        method: 'POST',
        ca,
        servername,
        localAddress,
        agent: false,
        headers,
      }
      httpsRequest(target, resolve).on('error', reject).end(JSON.stringify(body))
    })
  }

  async function read(response: IncomingMessage) {
    return JSON.parse((await response.toArray()).join('')) as { wit?: string; error?: { code: string } }
  }

  return {
    async identify(token, localAddress) {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const proof = await createTokenProof(privateKey, { token, now: now() })
      const { wit, error } = await read(await post('/v1/identity', { token, proof }, localAddress))
      return wit === undefined ? (error?.code ?? 'neither identity nor error') : { wit, privateKey, localAddress }
    },
    async tell({ wit, privateKey, localAddress }, path, body) {
      const proof = await createRequestProof(privateKey, { htu: path, now: now() })
      const response = await post(path, body, localAddress, { [HEADER_WIT]: wit, [HEADER_PROOF]: proof })
      response.resume()
      return response.statusCode ?? 0
    },
    async openStream({ wit, privateKey, localAddress }) {
      const proof = await createRequestProof(privateKey, { htu: '/v1/stream', now: now() })
      const headers = { [HEADER_WIT]: wit, [HEADER_PROOF]: proof }
      const response = await post('/v1/stream', { bundle: [], addresses: [] }, localAddress, headers)
      if (response.statusCode !== 200) return (await read(response)).error?.code ?? String(response.statusCode)
      return followStream(response)
    },
  }
}

function followStream(response: IncomingMessage): Promise<OpenStream> {
  const messages: StreamMessage[] = []
  let rest = ''
  return new Promise((resolve) => {
    response.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      messages.push(...lines.map((line) => JSON.parse(line) as StreamMessage))
      if (messages.length > 0) resolve(stream)
    })
    // Cut by the replica's end.
    response.on('error', () => {})
    const stream: OpenStream = {
      messages,
      voids: () =>
        messages.flatMap((message) =>
          message.type === 'hello' ? message.voids : message.type === 'void' ? [message.void] : [],
        ),
      close: () => response.destroy(),
    }
  })
}
