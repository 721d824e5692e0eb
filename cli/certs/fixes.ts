import type { RotationKind } from '../../api/rotation.ts'

/** What an operator can do, by the code of a wait, a refusal or a condition; undefined where nothing but time helps. */
export function fixOf(code: string, kind: RotationKind): string | undefined {
  return Object.hasOwn(FIXES, code) ? FIXES[code]?.replaceAll('KIND', kind) : undefined
}

const FIXES: Readonly<Record<string, string>> = {
  'rotation-waits-replicas':
    'one that ended counts for 60 s; look after the others: kubectl get pods -A -l app.kubernetes.io/name=synguard-webhook',
  'rotation-waits-trust': 'the log of the webhook says what it cannot write',
  'rotation-waits-sidecars': 'look at the Pods named, or go on without them: synguard certs force KIND',
  'rotation-no-keys': 'start the webhook: it makes the first keys',
  'rotation-keys-lost':
    'restore the Secret from a backup, or see docs/rotation.md, "When the Secret is gone or damaged"',
  'rotation-running':
    'see how far it is: synguard certs status; take it back: synguard certs abort KIND; do not wait for sidecars: synguard certs force KIND',
  'rotation-not-running': 'begin one: synguard certs rotate KIND',
  'rotation-no-way-back': 'let it end, then rotate again: synguard certs status --watch',
  'rotation-not-forcible': 'see what it waits for: synguard certs status',
  'rotation-too-many-keys': 'wait until one is removed: synguard certs status --watch',
  'rotation-request': 'write it anew: synguard certs rotate KIND',
  'authority-key': 'restore the Secret from a backup; running identities go on meanwhile',
  'authority-serving': 'restore the Secret from a backup; running identities go on meanwhile',
}
