import type { V1MutatingWebhookConfiguration } from '@kubernetes/client-node'
import type { Logger } from 'pino'
import type { ApiClient } from '../../kubernetes/client.ts'
import { createReflector } from '../../kubernetes/reflector.ts'
import { createWorkQueue } from '../kubernetes/work-queue.ts'
import { publishCaBundle, trusts, WEBHOOK_CONFIGURATIONS } from './ca-bundle.ts'

/** Keeps caBundle of the webhook configuration, whoever else writes there. */
export interface CaPublisher {
  /** Trust in the webhook as PEM, from now on. */
  setBundle(bundle: string): void
  /** Whether the API server trusts us; false while the configuration is missing. */
  published(): boolean
  stop(): Promise<void>
}

export interface CaPublisherOptions {
  readonly client: ApiClient
  /** Of the MutatingWebhookConfiguration. */
  readonly name: string
  readonly log: Logger
  /** From 0 up to 1. */
  readonly random: () => number
}

export function startCaPublisher({ client, name, log, random }: CaPublisherOptions): CaPublisher {
  let bundle: string | undefined
  let published = false
  const queue = createWorkQueue({ work, log, random })
  const reflector = createReflector<V1MutatingWebhookConfiguration>({
    client,
    path: WEBHOOK_CONFIGURATIONS,
    fieldSelector: `metadata.name=${name}`,
    strip: ({ metadata, webhooks }) => ({
      metadata: { ...metadata, managedFields: [] },
      ...(webhooks && { webhooks }),
    }),
    onChange: () => queue.add(name),
    log,
    random,
  })

  async function work(): Promise<void> {
    const configuration = reflector.get(name)
    const current = bundle
    if (configuration === undefined || current === undefined) {
      published = false
      return
    }
    if (!trusts(configuration, current)) {
      await publishCaBundle(client, configuration, current)
      log.info({ name }, 'caBundle is set')
    }
    published = true
  }

  reflector.start()
  return {
    setBundle(next) {
      bundle = next
      queue.add(name)
    },
    published: () => published,
    async stop() {
      await queue.stop()
      await reflector.stop()
    },
  }
}
