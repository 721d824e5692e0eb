/** What a real API server does too rarely to wait for; the rest is in test/apiserver. */
import { describe, expect, it } from '@jest/globals'
import { pino } from 'pino'
import type { ApiClient } from '../../../kubernetes/client.ts'
import { ApiError } from '../../../kubernetes/errors.ts'
import { createReflector, type StoredObject } from '../../../kubernetes/reflector.ts'

interface Labelled extends StoredObject {
  readonly label: string
}

const listOf = (resourceVersion: string, label: string) => ({
  metadata: { resourceVersion },
  items: [{ metadata: { name: 'a', resourceVersion: '5' }, label }],
})

/** Follows an API server that answers so, and whose watches break until the answers are used up. */
async function follow(answers: readonly unknown[]) {
  const asked: string[] = []
  const heard: (string | undefined)[] = []
  const rest = [...answers]
  const { promise: done, resolve } = Promise.withResolvers<void>()
  const client: ApiClient = {
    async send<Answer>({ query }: { query?: Readonly<Record<string, string>> }) {
      asked.push(query?.limit === '1' ? 'version' : 'list')
      const answer = rest.shift()
      if (answer instanceof Error) throw answer
      return answer as Answer
    },
    async *watch({ query, signal }) {
      asked.push(`watch from ${query?.resourceVersion}`)
      if (rest.length > 0) throw new ApiError('api-unreachable', 'The connection is lost.')
      resolve()
      await new Promise((ended) => signal?.addEventListener('abort', ended))
    },
  }
  const reflector = createReflector<Labelled>({
    client,
    path: '/things',
    strip: (object) => object,
    onChange: (_, after) => void heard.push(after?.label),
    log: pino({ level: 'silent' }),
    random: () => 0,
    backoff: { initialMs: 1, maxMs: 1 },
  })
  reflector.start()
  await done
  await reflector.stop()
  return { asked, heard }
}

describe('a watch that broke', () => {
  it('goes on where it was while the API server is at that version or further', async () => {
    const { asked, heard } = await follow([listOf('9', 'x'), listOf('9', 'x'), listOf('12', 'x')])
    expect(asked).toEqual(['list', 'watch from 9', 'version', 'watch from 9', 'version', 'watch from 9'])
    expect(heard).toEqual(['x'])
  })

  it('is begun anew where the API server went back, and takes no object there for the same by its version', async () => {
    const { asked, heard } = await follow([listOf('10', 'x'), listOf('9', 'y'), listOf('9', 'y')])
    expect(asked).toEqual(['list', 'watch from 10', 'version', 'list', 'watch from 9'])
    expect(heard).toEqual(['x', 'y'])
  })

  it('is not opened before the version is known', async () => {
    const lost = new ApiError('api-unreachable', 'The connection is lost.')
    const { asked } = await follow([listOf('9', 'x'), lost, listOf('8', 'x'), listOf('8', 'x')])
    expect(asked).toEqual(['list', 'watch from 9', 'version', 'version', 'list', 'watch from 8'])
  })

  it('goes on where versions are no numbers, of which none is earlier', async () => {
    const { asked } = await follow([listOf('b', 'x'), listOf('a', 'x')])
    expect(asked).toEqual(['list', 'watch from b', 'version', 'watch from b'])
  })
})
