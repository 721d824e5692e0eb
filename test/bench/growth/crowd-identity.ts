/** Identities of Pods that do not run: the issuer gives them as it gives all others, to the key and address that asks. */
import { generateKeyPairSync } from 'node:crypto'
import { request } from 'node:https'
import type { TrustBundle } from '../../../api/identity.ts'
import { exportPublicJwk, jwkThumbprint } from '../../../certs/authority.ts'
import { createTokenProof } from '../../../certs/possession.ts'
import { decodeWitParts } from '../../../certs/wit-parts.ts'
import { parseIdentityResponse } from '../../../sidecar/control/issuer-messages.ts'
import { encodeWitSection } from '../../../sidecar/handshake/frame.ts'
import { createOwnIdentity, hashWit, type OwnIdentity } from '../../../sidecar/handshake/keys.ts'
import type { CrowdPod, CrowdRequest } from './crowd-protocol.ts'

type Issuer = Extract<CrowdRequest, { do: 'obtain' }>['issuer']

const TIMEOUT_MILLISECONDS = 20_000
const LIFETIME_SECONDS = 3_600

function post(issuer: Issuer, localAddress: string, body: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: issuer.address,
        port: issuer.port,
        servername: issuer.name,
        ca: issuer.ca,
        localAddress,
        agent: false,
        method: 'POST',
        path: '/v1/identity',
        headers: { host: issuer.name, 'content-type': 'application/json' },
        timeout: TIMEOUT_MILLISECONDS,
      },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (part: string) => {
          text += part
        })
        response.on('error', reject)
        response.on('end', () => {
          if (response.statusCode === 200) resolve(JSON.parse(text))
          else reject(new Error(`/v1/identity answered ${response.statusCode}: ${text.slice(0, 300)}`))
        })
      },
    )
    sent.on('timeout', () => sent.destroy(new Error('/v1/identity did not answer in time')))
    sent.on('error', reject)
    sent.end(JSON.stringify(body))
  })
}

/** A WIT with a fresh key for the Pod, from the issuer; `generation` tells its pairwise keys from all others'. */
export async function obtainIdentity(
  issuer: Issuer,
  pod: CrowdPod,
  generation: number,
): Promise<{ own: OwnIdentity; bundle: TrustBundle }> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const now = Math.floor(Date.now() / 1000)
  const proof = await createTokenProof(privateKey, { token: pod.token, now })
  const { wit, bundle } = parseIdentityResponse(await post(issuer, pod.address, { token: pod.token, proof }))
  const own = createOwnIdentity({
    uid: pod.uid,
    generation,
    witSection: encodeWitSection(decodeWitParts(wit)),
    witHash: hashWit(wit),
    privateKey,
    thumbprint: jwkThumbprint(exportPublicJwk(privateKey)),
    expiresAt: now + LIFETIME_SECONDS,
  })
  return { own, bundle }
}
