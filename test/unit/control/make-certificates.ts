import { createServingAuthority, issueServingCertificate } from '../../../certs/serving.ts'

/**
 * Run as a program with a list of names for each certificate wanted (`a.test,b.test c.test`): prints an authority,
 * another one, and the certificates as JSON. A process of its own, since big numbers run 20 times slower inside Jest.
 */
const now = Math.floor(Date.now() / 1000)
const authority = createServingAuthority({ now, lifetimeSeconds: 3600 })
const other = createServingAuthority({ now, lifetimeSeconds: 3600 })
const certificates = process.argv
  .slice(2)
  .map((names) =>
    issueServingCertificate(authority, { names: names.split(','), addresses: [], now, lifetimeSeconds: 3600 }),
  )
process.stdout.write(JSON.stringify({ authority, other, certificates }))
