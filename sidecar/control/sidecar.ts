/** The control plane of one sidecar: what it holds, what it tells the packet path, and what makes it ready. */
import type { Mode, StreamMessage, VoidEntry } from '../../api/identity.ts'
import { PATH_CREDENTIALS, PATH_STATE, QUEUE_OTHER, QUEUE_TCP } from '../../api/names.ts'
import { SKEW_SECONDS } from '../../certs/limits.ts'
import type { NetworkPolicy } from '../../policy/types.ts'
import type { GateSettings } from '../datapath/gate.ts'
import type { FromWorker } from '../datapath/messages.ts'
import { bundleMessage, ownMessage, subjectOf } from './briefing.ts'
import { watchConntrackRoom } from './conntrack-room.ts'
import { createDirectoryMirror } from './directory-mirror.ts'
import { IssuerRefusal } from './errors.ts'
import { type Condition, createHealthServer } from './health.ts'
import { authenticateRequest, createIdentityClient, type OwnIdentity } from './identity-client.ts'
import { createIssuerHttp } from './issuer-http.ts'
import { readLimits, warnOfLimits } from './limits.ts'
import { createLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createModes, followNamespaceMode } from './namespace-mode.ts'
import { createPeersClient } from './peers-client.ts'
import { readNodeAddresses, readSmallestMtu } from './pod-network.ts'
import type { Sources } from './policies/open.ts'
import { createPolicyView } from './policy-view.ts'
import { conditionsOf, setReadiness } from './readiness.ts'
import { rehearseOwn } from './rehearsal.ts'
import { createReports } from './reports.ts'
import { restoreIdentityTable } from './restore-state.ts'
import { startRulesCheck } from './rules-check.ts'
import { openRunningConnections } from './running-connections.ts'
import type { SidecarSettings } from './settings.ts'
import { createStreamClient } from './stream-client.ts'
import { createTrustKeeper } from './trust-keeper.ts'
import { createVerifier } from './verifier.ts'
import { applyVoidEntry } from './void-entries.ts'
import { startWorker } from './worker-supervisor.ts'

const RULES_CHECK_MILLISECONDS = 30_000
const CONNTRACK_CHECK_MILLISECONDS = 2_000
/** A namespace's relabel makes all its Pods renew: not all at the same moment. */
const RENEWAL_SPREAD_MILLISECONDS = 1_000
const DIRECTORY_CHECK_MILLISECONDS = 1_000

/** Starts everything; resolves once the packet path runs. Throws where the kernel or the files refuse. */
export async function startSidecar(settings: SidecarSettings, sources: Sources, workerScript: URL): Promise<void> {
  const { policies: source, client } = sources
  const log = createLog({
    level: settings.logLevel,
    pod: settings.pod.name,
    namespace: settings.pod.namespace,
  })
  const metrics = createMetrics()
  const limits = readLimits()
  warnOfLimits(limits, log)
  metrics.byName.memory_limit_bytes.set(limits.memoryBytes ?? 0)
  metrics.byName.cpu_limit_cores.set(limits.cpuCores ?? 0)
  const now = Date.now
  const random = Math.random

  let mode: Mode = settings.mode
  const modes = createModes(mode, setMode)
  let identity: OwnIdentity | undefined
  let generation = 0
  let policies: readonly NetworkPolicy[] = []
  let policiesSynced = false
  let revoked = false
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
    ownEndpoints: [settings.issuer, ...(settings.policySource.kind === 'api' ? [settings.policySource] : [])],
    skewSeconds: SKEW_SECONDS,
    mtu: readSmallestMtu(),
  })

  const table = restoreIdentityTable(PATH_STATE, log)
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
    bundle: () => trust.bundle(),
    own: () => identity && { generation, privateKey: identity.privateKey },
    fetchBundle: () => trust.fetch(),
    now,
    onResult: (result) => metrics.byName.wit_verifications_total.inc({ result }),
  })

  const view = createPolicyView()
  // Before the packet path starts: it ends connections whose row is lost, as long as no other peer has their index.
  const reviews = openRunningConnections({
    table,
    podAddresses: new Set(settings.podAddresses),
    currentIdentity: verifier.currentIdentity,
    isDistrusted: (kid) => trust.isDistrusted(kid),
    peers: () => peers,
    settings: gateSettings,
    policy: view.policy,
    metrics,
    now,
    log,
  })

  const reports = createReports({
    pod: () => identity?.verified.identity ?? { ...settings.pod, labels: {} },
    mode: () => mode,
    tell: (message) => worker.tell(message),
    connections: reviews,
    policy: view.policy,
    currentIdentity: verifier.currentIdentity,
    ...{ table, http, authenticate, now, log },
  })

  const trust = createTrustKeeper({
    ...{ http, authenticate, log, random, caPath: `${PATH_CREDENTIALS}/ca.crt` },
    identityKid: () => identity?.verified.kid,
    onBundle: (bundle) => worker.tell(bundleMessage(bundle)),
    onCut: () => reviewBehind('compromised'),
    renew: (reason, spreadMs) => identities.renew(reason, spreadMs),
  })

  // ---- the packet path ----

  const worker = startWorker({
    script: workerScript,
    data: () => ({ settings: gateSettings(), queueTcp: QUEUE_TCP, queueOther: QUEUE_OTHER }),
    briefing: () => [
      ...[trust.bundle()].flatMap((bundle) => (bundle ? [bundleMessage(bundle)] : [])),
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
      case 'denials':
      case 'opened':
        return reports.take(message)
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
    onIdentity: async (next) => {
      const expected = { trustDomain: settings.trustDomain, issuer, skewSeconds: SKEW_SECONDS }
      if (generation === 0) await rehearseOwn(next, { ...expected, directory: PATH_STATE, now }, log)
      identity = next
      generation++
      revoked = false
      metrics.byName.identity_renewals_total.inc({ result: 'ok' })
      metrics.byName.identity_expiry_timestamp_seconds.set(next.verified.expiresAt)
      trust.take(next.bundle)
      worker.tell(ownMessage(next, generation))
      trust.identityChanged()
      applyPolicies()
      updateReady()
      stream.start()
    },
    onFailure: (error) => {
      metrics.byName.identity_renewals_total.inc({ result: error.code })
      if (error instanceof IssuerRefusal && error.issuerCode === 'identity-revoked') revoked = true
      applyPolicies()
      updateReady()
    },
  })

  const stream = createStreamClient({
    http,
    authenticate,
    holding: () => ({ ...trust.holding(), addresses: peers.addresses() }),
    onMessage: (message, sent) => {
      if (message.type === 'hello') {
        peers.streamOpened(sent.addresses)
        trust.acknowledged(sent.acknowledge)
      }
      onStreamMessage(message)
    },
    onState: (connected) => {
      metrics.byName.stream_connected.set(connected ? 1 : 0)
      if (!connected) peers.streamLost()
    },
    // It became void while no stream was open to say so.
    onRefused: (code) => code === 'wit-void' && identities.renew('void', RENEWAL_SPREAD_MILLISECONDS),
    onLine: (type) => metrics.byName.stream_messages_total.inc({ type }),
    log,
    random,
  })

  function onStreamMessage(message: Exclude<StreamMessage, { type: 'ping' }>): void {
    switch (message.type) {
      case 'hello':
        trust.take(message.bundle)
        modes.setOfPod(message.mode)
        for (const entry of message.voids) addVoid(entry)
        return reviewBehind('stream')
      case 'renew':
        return identities.renew('labels changed', RENEWAL_SPREAD_MILLISECONDS)
      case 'bundle':
        return trust.take(message.bundle)
      case 'void':
        return addVoid(message.void) ? reviewBehind('void') : undefined
      case 'directory':
        peers.update(message.address, message.entry)
        return reviewBehind('directory')
      case 'mode':
        return modes.setOfPod(message.mode)
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

  /** Whether running connections have to be judged again. */
  function addVoid(entry: VoidEntry): boolean {
    verifier.addVoid(entry)
    if (entry.uid === settings.pod.uid && identity !== undefined && identity.verified.issuedAt <= entry.iatBefore) {
      identities.renew('void', RENEWAL_SPREAD_MILLISECONDS)
    }
    const { message, concernsConnections } = applyVoidEntry(table, entry)
    if (message) worker.tell(message)
    return concernsConnections
  }

  // ---- policies ----

  function applyPolicies(): void {
    if (!identity || !policiesSynced || !view.update(policies, subjectOf(identity), revoked)) return
    for (const message of policyMessages()) worker.tell(message)
    reviewBehind('policy')
  }

  function policyMessages() {
    const message = view.message()
    return message ? [message] : []
  }

  /** Reviews once the packet path has all that it was told: no connection is then released by what was before. */
  function reviewBehind(cause: string): void {
    worker.tell({ type: 'barrier', cause })
  }

  // ---- readiness ----

  const conditions = (): Condition[] =>
    conditionsOf(
      {
        mode,
        queuesBound: worker.bound(),
        identity,
        revoked,
        policies: { synced: policiesSynced, count: policies.length, confirmedAtMs: source.confirmedAt() },
        rules,
      },
      now(),
    )

  function updateReady(): void {
    const next = identity !== undefined && policiesSynced
    if (next !== ready) {
      ready = next
      worker.tell({ type: 'ready', ready })
    }
    setReadiness(metrics, mode, conditions())
  }

  await createHealthServer({
    port: settings.healthPort,
    live: () => [{ name: 'worker', ok: worker.bound(), reason: worker.bound() ? 'running' : 'not running' }],
    conditions,
    registry: {
      contentType: metrics.registry.contentType,
      metrics: () => {
        metrics.byName.policies_confirmed_timestamp_seconds.set((source.confirmedAt() ?? 0) / 1000)
        return metrics.registry.metrics()
      },
    },
    documents: reports.documents,
  })
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

  // Both ask over connections that the packet path has to let through.
  await worker.firstBound
  identities.start()
  if (client) {
    followNamespaceMode({ client, namespace: settings.pod.namespace, onChange: modes.setOfNamespace, log, random })
  }
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
}
