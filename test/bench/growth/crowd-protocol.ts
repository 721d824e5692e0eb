/** What the bench says to the process that stands for many client Pods. */
export interface CrowdPod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly address: string
  /** Its projected token. */
  readonly token: string
}

export type CrowdRequest =
  /** Obtains a WIT for each Pod from the issuer, asking from the Pod's address. */
  | {
      readonly do: 'obtain'
      readonly pods: readonly CrowdPod[]
      readonly issuer: { readonly address: string; readonly port: number; readonly name: string; readonly ca: string }
      readonly trustDomain: string
    }
  /** One connection from each of `count` addresses from `source` on, by `flows visit`, with the handshake's frames. */
  | {
      readonly do: 'visit'
      readonly flows: string
      readonly server: string
      readonly port: number
      readonly source: string
      readonly count: number
      readonly perSecond: number
    }

export interface Visited {
  readonly succeeded: number
  readonly failed: number
  readonly firstError: string
}

export type CrowdAnswers = { readonly obtain: null; readonly visit: Visited }

/** The queue of the crowd's namespace, whose rules are crowd.ts's own. */
export const CROWD_QUEUE = 100
