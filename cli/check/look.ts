import type { ApiClient } from '../../kubernetes/client.ts'
import { ApiError, hasStatus } from '../../kubernetes/errors.ts'
import { type Seen, seen, unseen } from './facts.ts'

/** As the API server's authorizer writes it. */
const FORBIDDEN = /cannot (?<verb>[a-z]+) resource "(?<resource>[^"]+)"(?: in API group "[^"]*")?(?<where>.*)$/s

/** Why a request failed, as the end of "could not be seen: ". */
export function describeFailure(error: unknown): string {
  if (!(error instanceof ApiError)) return error instanceof Error ? error.message : String(error)
  const { groups } = FORBIDDEN.exec(error.message) ?? {}
  if (error.status === 403 && groups !== undefined) {
    const where = groups.where?.replace(/ at the cluster scope.*$/s, '').replaceAll('"', '') ?? ''
    return `you may not ${groups.verb} ${groups.resource}${where}`
  }
  return error.message
}

/** Whether nobody can be asked anything: then there is nothing to check. */
function isHopeless(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false
  return error.code === 'api-unreachable' || error.code === 'api-credentials' || error.status === 401
}

/** The answer, or why there is none. Rejects where the API server cannot be asked at all. */
export async function look<Value>(read: () => Promise<Value>): Promise<Seen<Value>> {
  try {
    return seen(await read())
  } catch (error) {
    if (isHopeless(error)) throw error
    return unseen(describeFailure(error))
  }
}

/** The object at that path; undefined where there is none. */
export function lookAt<Kind>(client: ApiClient, path: string): Promise<Seen<Kind | undefined>> {
  return look(async () => {
    try {
      return await client.send<Kind>({ method: 'GET', path })
    } catch (error) {
      if (hasStatus(error, 404)) return undefined
      throw error
    }
  })
}

const PAGE = 250

/** The objects of that collection. */
export function lookThrough<Kind>(
  client: ApiClient,
  path: string,
  query: Readonly<Record<string, string>> = {},
): Promise<Seen<readonly Kind[]>> {
  return look(async () => {
    const items: Kind[] = []
    let next: string | undefined
    do {
      const page = await client.send<{ items?: Kind[]; metadata?: { continue?: string } }>({
        method: 'GET',
        path,
        query: { ...query, limit: String(PAGE), ...(next && { continue: next }) },
      })
      items.push(...(page.items ?? []))
      next = page.metadata?.continue
    } while (next)
    return items
  })
}

/** `work` on each item, `width` at a time; results in the items' order. */
export async function eachOf<Item, Result>(
  items: readonly Item[],
  width: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = []
  let next = 0
  async function run(): Promise<void> {
    while (next < items.length) {
      const index = next++
      results[index] = await work(items[index] as Item)
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, run))
  return results
}
