/** The control plane of one sidecar: what it holds, what it tells the packet path, and what makes it ready. */
import type { Mode, StreamMessage, TrustBundle, VoidEntry } from '../../api/identity.ts'
import { PATH_CREDENTIALS, PATH_STATE, QUEUE_OTHER, QUEUE_TCP } from '../../api/names.ts'
import { SKEW_SECONDS } from '../../certs/limits.ts'
import { compile } from '../../policy/compile.ts'
import type { NetworkPolicy } from '../../policy/types.ts'
import { createGatePolicy, type GatePolicy, type GateSettings } from '../datapath/gate.ts'
import type { FromWorker, ToWorker } from '../datapath/messages.ts'
import { openConntrack } from '../netlink/conntrack.ts'
import { openSockDiag } from '../netlink/sock-diag.ts'
import { bundleMessage, isSameSubject, ownMessage, policiesMessage, subjectOf } from './briefing.ts'
import { watchConntrackRoom } from './conntrack-room.ts'
import { createDirectoryMirror } from './directory-mirror.ts'
import { reviewFlows } from './flow-review.ts'
import { type Condition, createHealthServer } from './health.ts'
import { authenticateRequest, createIdentityClient, type OwnIdentity } from './identity-client.ts'
import { openIdentityTable } from './identity-table.ts'
import { createIssuerHttp } from './issuer-http.ts'
import { parseTrustBundle } from './issuer-messages.ts'
import { readLimits, warnOfLimits } from './limits.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createPeersClient } from './peers-client.ts'
import { readNodeAddresses, readSmallestMtu } from './pod-network.ts'
import type { PolicySource } from './policies/source.ts'
import { createRefusalLog } from './refusal-log.ts'
import { createReviews } from './reviews.ts'
import { startRulesCheck } from './rules-check.ts'
import type { SidecarSettings } from './settings.ts'
import { createStreamClient } from './stream-client.ts'
import { createVerifier } from './verifier.ts'
import { relabelled } from './voids.ts'
import { startWorker } from './worker-supervisor.ts'

const RULES_CHECK_MILLISECONDS = 30_000
const CONNTRACK_CHECK_MILLISECONDS = 2_000
/** Above this many rows of the identity table the expired ones are freed. */
const PRUNE_ROWS = 10_000
/** A namespace's relabel makes all its Pods renew: not all at the same moment. */
const RENEWAL_SPREAD_MILLISECONDS = 1_000
const DIRECTORY_CHECK_MILLISECONDS = 1_000

/** Starts everything; returns once the health server listens. Throws where the kernel or the files refuse. */
export async function startSidecar(settings: SidecarSettings, source: PolicySource, workerScript: URL): Promise<void> {
  const log = createLog({
    level: settings.logLevel,
    pod: settings.pod.name,
    namespace: settings.pod.namespace,
  })
  const logRefusal = createRefusalLog(log)
  const metrics = createMetrics()
  const limits = readLimits()
  warnOfLimits(limits, log)
  metrics.byName.memory_limit_bytes.set(limits.memoryBytes ?? 0)
  metrics.byName.cpu_limit_cores.set(limits.cpuCores ?? 0)
  const now = Date.now
  const random = Math.random

  const podAddresses = new Set(settings.podAddresses)
  let mode: Mode = settings.mode
  let identity: OwnIdentity | undefined
  let generation = 0
  let bundle: TrustBundle | undefined
  let policies: readonly NetworkPolicy[] = []
  let policiesSynced = false
  let judgePolicy: GatePolicy | undefined
  let ready = false
  let rules: Condition = { name: 'rules', ok: false, reason: 'not checked yet' }

  const gateSettings = (): GateSettings => ({
    mode,
    peersWithoutIdentity: settings.peersWithoutIdentity,
    nodeAccess: settings.nodeAccess,
    refusal: settings.refusal,
    clusterNetworks: settings.clusterNetworks,
    nodeAddresses: readNodeAddresses(settings),
    probePorts: settings.probePorts,
    healthPort: settings.healthPort,
    ownEndpoints: [{ address: settings.issuer.address, port: settings.issuer.port }],
    skewSeconds: SKEW_SECONDS,
    mtu: readSmallestMtu(),
  })

  const table = openIdentityTable(PATH_STATE, (error) =>
    log.error({ error: error.message }, 'identity table not written'),
  )
  const http = createIssuerHttp({
    address: settings.issuer.address,
    port: settings.issuer.port,
    name: settings.issuer.name,
    caPath: `${PATH_CREDENTIALS}/ca.crt`,
    now,
    onResult: (endpoint, code) => metrics.byName.issuer_requests_total.inc({ endpoint, code }),
  })
  const authenticate = (path: string) => authenticateRequest(identity, path, now())
  const issuer = `https://${settings.issuer.name}`

  const verifier = createVerifier({
    table,
    trustDomain: settings.trustDomain,
    issuer,
    skewSeconds: SKEW_SECONDS,
    bundle: () => bundle,
    fetchBundle,
    now,
    onResult: (result) => metrics.byName.wit_verifications_total.inc({ result }),
  })

  async function fetchBundle(): Promise<void> {
    try {
      setBundle(parseTrustBundle(await http.send({ method: 'GET', path: '/v1/bundle', timeoutMs: 5_000 })))
    } catch (error) {
      log.warn({ error: (error as Error).message }, 'trust bundle not fetched')
    }
  }

  function setBundle(next: TrustBundle): void {
    bundle = next
    worker.tell(bundleMessage(next))
  }

  // ---- the packet path ----

  const worker = startWorker({
    script: workerScript,
    data: () => ({ settings: gateSettings(), queueTcp: QUEUE_TCP, queueOther: QUEUE_OTHER }),
    briefing: () => [
      ...(bundle ? [bundleMessage(bundle)] : []),
      ...(identity ? [ownMessage(identity, generation)] : []),
      ...policyMessages(),
      { type: 'ready', ready },
      { type: 'barrier', cause: 'restart' },
    ],
    onMessage: (message) => void onWorkerMessage(message),
    onRestart: () => metrics.byName.worker_restarts_total.inc(),
    log,
  })

  async function onWorkerMessage(message: FromWorker): Promise<void> {
    switch (message.type) {
      case 'bound':
        return updateReady()
      case 'verify': {
        const result = await verifier.verify(message.section)
        return worker.tell({ type: 'verified', key: message.key, section: message.section, result })
      }
      case 'resolve': {
        const answer = await peers.ask(message.address)
        const entry = answer.kind === 'known' ? answer.entry : 'unknown'
        return directory.answer(message.address, entry)
      }
      case 'row': {
        const base = table.get(message.index)
        const row = base && table.obtain({ ...base, port: message.port })
        // Without a row the connection is not released; its held packet expires and is repeated.
        if (row)
          worker.tell({ type: 'row', key: message.key, index: message.index, port: message.port, row: row.index })
        return
      }
      case 'reached':
        return reviews.request(message.cause)
      case 'refusal':
        return logRefusal(message.report)
      case 'counters': {
        const unknown = metrics.setFromSnapshot(message.values, `worker ${worker.generation()}`)
        if (unknown.length > 0) log.warn({ unknown }, 'counters without a metric')
        metrics.byName.identity_table_rows.set(table.size())
        return
      }
    }
  }

  // ---- the directory ----

  const peers = createPeersClient({
    http,
    authenticate,
    now,
    onUnsubscribed: () => stream.reconnect(),
    onEntry: (address, entry) => directory.update(address, entry),
  })
  const directory = createDirectoryMirror(
    (message) => worker.tell(message),
    (address) => peers.peek(address) !== undefined,
    DIRECTORY_CHECK_MILLISECONDS,
  )

  // ---- identity and stream ----

  const identities = createIdentityClient({
    http,
    tokenPath: `${PATH_CREDENTIALS}/token`,
    pod: settings.pod,
    trustDomain: settings.trustDomain,
    issuer,
    skewSeconds: SKEW_SECONDS,
    now,
    random,
    log,
    onIdentity: (next) => {
      const changed = identity === undefined || !isSameSubject(identity, next)
      identity = next
      generation++
      metrics.byName.identity_renewals_total.inc({ result: 'ok' })
      metrics.byName.identity_expiry_timestamp_seconds.set(next.verified.expiresAt)
      setBundle(next.bundle)
      worker.tell(ownMessage(next, generation))
      if (changed) applyPolicies()
      updateReady()
      stream.start()
    },
    onFailure: (error) => {
      metrics.byName.identity_renewals_total.inc({ result: error.code })
      updateReady()
    },
  })

  const stream = createStreamClient({
    http,
    authenticate,
    holding: () => ({ bundle: bundle?.keys.map(({ kid }) => kid) ?? [], addresses: peers.addresses() }),
    onMessage: (message, sent) => {
      if (message.type === 'hello') peers.streamOpened(sent.addresses)
      onStreamMessage(message)
    },
    onState: (connected) => {
      metrics.byName.stream_connected.set(connected ? 1 : 0)
      if (!connected) peers.streamLost()
    },
    onLine: (type) => metrics.byName.stream_messages_total.inc({ type }),
    log,
    random,
  })

  function onStreamMessage(message: Exclude<StreamMessage, { type: 'ping' }>): void {
    switch (message.type) {
      case 'hello':
        setBundle(message.bundle)
        setMode(message.mode)
        for (const entry of message.voids) addVoid(entry)
        return reviewBehind('stream')
      case 'renew':
        return identities.renew('labels changed', RENEWAL_SPREAD_MILLISECONDS)
      case 'bundle':
        return setBundle(message.bundle)
      case 'void':
        addVoid(message.void)
        return reviewBehind('void')
      case 'directory':
        peers.update(message.address, message.entry)
        return reviewBehind('directory')
      case 'mode':
        return setMode(message.mode)
    }
  }

  function setMode(next: Mode): void {
    if (next === mode) return
    log.info({ from: mode, to: next }, 'mode changed')
    mode = next
    worker.tell({ type: 'settings', settings: gateSettings() })
    reviewBehind('mode')
    updateReady()
  }

  function addVoid(entry: VoidEntry): void {
    verifier.addVoid(entry)
    if (entry.uid === settings.pod.uid) {
      const stands = identity === undefined || identity.verified.issuedAt > entry.iatBefore
      return stands ? undefined : identities.renew('void', RENEWAL_SPREAD_MILLISECONDS)
    }
    if (!entry.labels && !entry.namespaceLabels) {
      return worker.tell({ type: 'void', uid: entry.uid, issuedBefore: entry.iatBefore })
    }
    for (const row of table.rows()) {
      if (row.identity.uid !== entry.uid || row.issuedAt > entry.iatBefore || row.port !== 0) continue
      const next = relabelled(row.identity, entry)
      const fresh = table.obtain({ ...row, identity: next })
      if (!fresh) continue
      worker.tell({
        type: 'relabel',
        uid: entry.uid,
        issuedBefore: entry.iatBefore,
        identity: next,
        index: fresh.index,
      })
      break
    }
  }

  // ---- policies ----

  source.start({
    onChange: (set) => {
      policies = set.policies
      policiesSynced = set.synced
      metrics.byName.policy_count.set(policies.length)
      metrics.byName.policies_synced.set(policiesSynced ? 1 : 0)
      applyPolicies()
      updateReady()
    },
    onError: (error) => {
      metrics.byName.policy_errors_total.inc({ code: error.code })
      log.error({ code: error.code, error: error.message }, 'policies not read')
    },
  })

  function applyPolicies(): void {
    if (identity) judgePolicy = createGatePolicy(compile(policies, subjectOf(identity)))
    for (const message of policyMessages()) worker.tell(message)
    reviewBehind('policy')
  }

  function policyMessages(): ToWorker[] {
    if (!identity || !policiesSynced) return []
    return [policiesMessage(policies, subjectOf(identity))]
  }

  // ---- running connections ----

  const conntrack = openConntrack()
  const sockDiag = openSockDiag()
  const reviews = createReviews(review)

  /** Reviews once the packet path has all that it was told: no connection is then released by what was before. */
  function reviewBehind(cause: string): void {
    worker.tell({ type: 'barrier', cause })
  }

  async function review(cause: string): Promise<void> {
    if (mode !== 'enforce' || !judgePolicy) return
    const started = now()
    const view = gateSettings()
    try {
      const result = await reviewFlows({
        conntrack,
        sockDiag,
        table,
        podAddresses,
        witExpected: cause === 'mode',
        currentIdentity: verifier.currentIdentity,
        judge: {
          settings: view,
          clusterNetworks: view.clusterNetworks,
          nodeAddresses: new Set(view.nodeAddresses),
          directory: { get: (address) => peers.peek(address) },
          policy: judgePolicy,
        },
        resolve: async (address) => void (await peers.ask(address)),
      })
      for (const direction of ['ingress', 'egress'] as const) {
        metrics.byName.revoked_flows_total.inc({ direction, cause }, result.revoked[direction])
      }
      const { ingress, egress } = result.revoked
      if (ingress + egress > 0) log.info({ cause, reviewed: result.reviewed, ingress, egress }, 'connections revoked')
      if (cause === 'policy') metrics.byName.policy_swap_seconds.observe((now() - started) / 1000)
      if (table.size() > PRUNE_ROWS) table.prune(result.inUse, now() / 1000 - SKEW_SECONDS)
    } catch (error) {
      log.error({ cause, error: (error as Error).message }, 'running connections not reviewed')
    }
  }

  // ---- readiness ----

  function conditions(): Condition[] {
    const held = identities.current()
    const valid = held !== undefined && held.expiresAtMs > now()
    return [
      worker.bound()
        ? { name: 'queue', ok: true, reason: 'the queues are bound' }
        : { name: 'queue', ok: false, reason: 'the packet path is not running' },
      valid
        ? { name: 'identity', ok: true, reason: `held until ${new Date(held.expiresAtMs).toISOString()}` }
        : { name: 'identity', ok: false, reason: held ? 'expired: the issuer cannot be reached' : 'none obtained yet' },
      policiesSynced
        ? { name: 'policies', ok: true, reason: `${policies.length} policies stand` }
        : { name: 'policies', ok: false, reason: 'not read in full yet' },
      rules,
    ]
  }

  function updateReady(): void {
    for (const one of ['enforce', 'audit', 'off'] as const) metrics.byName.mode.set({ mode: one }, one === mode ? 1 : 0)
    const next = identity !== undefined && policiesSynced
    if (next !== ready) {
      ready = next
      worker.tell({ type: 'ready', ready })
    }
    const all = conditions()
    for (const { name, ok } of all) metrics.byName.condition.set({ condition: name }, ok ? 1 : 0)
    metrics.byName.ready.set(all.every(({ ok }) => ok) ? 1 : 0)
  }

  await createHealthServer({
    port: settings.healthPort,
    live: () => [{ name: 'worker', ok: worker.bound(), reason: worker.bound() ? 'running' : 'not running' }],
    conditions,
    registry: metrics.registry,
  })
  identities.start()
  startRulesCheck({
    refusal: settings.refusal,
    intervalMs: RULES_CHECK_MILLISECONDS,
    onCondition: (condition) => {
      if (!condition.ok) metrics.byName.rules_mismatch_total.inc()
      rules = condition
      updateReady()
    },
    log,
  })
  watchConntrackRoom({
    intervalMs: CONNTRACK_CHECK_MILLISECONDS,
    onRoom: ({ entries, maximum }) => {
      metrics.byName.conntrack_entries.set(entries)
      metrics.byName.conntrack_maximum.set(maximum)
    },
    log,
  })
  log.info({ mode, policySource: settings.policySource.kind }, 'sidecar started')
}
