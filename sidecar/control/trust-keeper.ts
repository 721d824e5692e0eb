/** The keys by which this Pod trusts others and the issuer: keeps the latest, and acknowledges to the issuer what it holds. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { AcknowledgeRequest, StreamRequest, TrustBundle } from '../../api/identity.ts'
import { type BackoffLimits, backoffMs } from './backoff.ts'
import type { IssuerHttp } from './issuer-http.ts'
import { parseTrustBundle } from './issuer-messages.ts'
import type { LogSink } from './log.ts'

export interface TrustKeeperOptions {
  readonly http: Pick<IssuerHttp, 'send'>
  /** The headers that authenticate a request for the path; rejects where there is no identity yet. */
  readonly authenticate: (path: string) => Promise<Record<string, string>>
  /** PEM file of the CAs by which the issuer is trusted; a rotation changes it in place. */
  readonly caPath: string
  /** By which key the own identity is signed; undefined before the first. */
  readonly identityKid: () => string | undefined
  /** Hears of each bundle that is held from now on. */
  readonly onBundle: (bundle: TrustBundle) => void
  /** Hears that a compromised key is gone from the bundle: connections may rest on it. */
  readonly onCut: () => void
  /** Asks for a new identity within so many milliseconds. */
  readonly renew: (reason: string, spreadMs: number) => void
  readonly log: LogSink
  readonly random: () => number
  readonly retry?: BackoffLimits
  /** Acknowledgements of many sidecars come within this time. */
  readonly spreadMs?: number
  readonly caCheckMs?: number
}

export interface TrustKeeper {
  /** undefined before the first. */
  bundle(): TrustBundle | undefined
  /** Holds the bundle from now on, unless the one that is held is later. */
  take(bundle: TrustBundle): void
  /** Whether a key was compromised, and is gone from the bundle for that. */
  isDistrusted(kid: string): boolean
  /** The own identity is another one: it may be what an acknowledgement waits for. */
  identityChanged(): void
  /** Asks the issuer for its bundle; never rejects. */
  fetch(): Promise<void>
  /** What a stream's request says of it. */
  holding(): Pick<StreamRequest, 'bundle' | 'acknowledge'>
  /** The issuer has heard it. */
  acknowledged(held: AcknowledgeRequest | undefined): void
  stop(): void
}

const PATH = '/v1/acknowledge'
const RETRY: BackoffLimits = { initialMs: 500, maxMs: 30_000 }
const SPREAD_MS = 2_000
/** In an emergency all Pods ask for an identity, and have 60 s. */
const REISSUE_SPREAD_MS = 10_000
/** The kubelet takes a minute to change the file. */
const CA_CHECK_MS = 5_000
const TIMEOUT_MS = 10_000
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
/** As the issuer takes at most: more are kept by no rotation. */
const AUTHORITIES_MAX = 8

export function createTrustKeeper(options: TrustKeeperOptions): TrustKeeper {
  const { http, authenticate, caPath, identityKid, log, random } = options
  let held: TrustBundle | undefined
  /** A few at most: each is an emergency. */
  const distrusted = new Set<string>()
  /** undefined before the file was read. */
  let authorities: readonly string[] | undefined
  let heard: string | undefined
  let failures = 0
  let sending = false
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  const caTimer = setInterval(() => void readAuthorities(), options.caCheckMs ?? CA_CHECK_MS)
  caTimer.unref()
  void readAuthorities()

  async function readAuthorities(): Promise<void> {
    // What cannot be read is told by the requests that need it.
    const text = await readFile(caPath, 'utf8').catch(() => '')
    const found = (text.match(CERTIFICATE) ?? []).slice(0, AUTHORITIES_MAX)
    authorities = found.map((pem) => createHash('sha256').update(pem).digest('hex'))
    schedule()
  }

  /** undefined where the issuer asks for none, and while something is not known yet. */
  function current(): AcknowledgeRequest | undefined {
    if (held?.generation === undefined || authorities === undefined) return undefined
    const { generation, signer } = held
    const isReissued = signer === undefined || identityKid() === signer
    return { ...(isReissued && { generation }), authorities }
  }

  function schedule(waitMs = random() * (options.spreadMs ?? SPREAD_MS)): void {
    if (stopped || sending || timer !== undefined || identityKid() === undefined) return
    const now = current()
    if (now === undefined || JSON.stringify(now) === heard) return
    timer = setTimeout(() => void send(), waitMs)
  }

  async function send(): Promise<void> {
    timer = undefined
    const body = current()
    if (body === undefined || JSON.stringify(body) === heard) return
    sending = true
    try {
      await http.send({ method: 'POST', path: PATH, headers: await authenticate(PATH), body, timeoutMs: TIMEOUT_MS })
      heard = JSON.stringify(body)
      failures = 0
    } catch (error) {
      failures += 1
      if (failures === 1) log.warn({ error: (error as Error).message }, 'keys not acknowledged; trying again')
    }
    sending = false
    if (failures === 0) schedule()
    else schedule(backoffMs(failures - 1, options.retry ?? RETRY, random))
  }

  function reissueIfAsked(): void {
    const kid = identityKid()
    if (held?.signer === undefined || kid === undefined || kid === held.signer) return
    options.renew('keys compromised', REISSUE_SPREAD_MS)
  }

  function take(next: TrustBundle): void {
    const [before, after] = [held?.generation, next.generation]
    // An issuer from before rotation says no generation, and has the keys of the same Secret.
    if (before !== undefined && after !== undefined && after < before) return
    const cut = cutBetween(held, next)
    held = next
    options.onBundle(next)
    reissueIfAsked()
    for (const kid of cut) distrusted.add(kid)
    if (cut.length > 0) options.onCut()
    schedule()
  }

  return {
    bundle: () => held,
    take,
    isDistrusted: (kid) => distrusted.has(kid),
    identityChanged() {
      reissueIfAsked()
      schedule()
    },
    async fetch() {
      try {
        take(parseTrustBundle(await http.send({ method: 'GET', path: '/v1/bundle', timeoutMs: 5_000 })))
      } catch (error) {
        log.warn({ error: (error as Error).message }, 'trust bundle not fetched')
      }
    },
    holding() {
      const acknowledge = current()
      return { bundle: held?.keys.map(({ kid }) => kid) ?? [], ...(acknowledge && { acknowledge }) }
    },
    acknowledged(said) {
      if (said !== undefined) heard = JSON.stringify(said)
    },
    stop() {
      stopped = true
      clearTimeout(timer)
      clearInterval(caTimer)
    },
  }
}

/** Where a bundle named a signer, all its other keys are compromised, and then gone. */
function cutBetween(before: TrustBundle | undefined, after: TrustBundle): string[] {
  if (before?.signer === undefined) return []
  const kids = before.keys.map(({ kid }) => kid).filter((kid) => kid !== before.signer)
  return kids.filter((kid) => !after.keys.some((key) => key.kid === kid))
}
