import { createPublicKey, diffieHellman, generateKeyPairSync, hkdfSync } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import { exportPublicJwk, jwkThumbprint } from '../../../certs/authority.ts'
import { derivePairwiseKey, sharedSecret } from '../../../sidecar/handshake/keys.ts'

describe('the key of a pair', () => {
  it('is HKDF of the shared secret and both thumbprints in order, the same at both ends, of a JWK or of its key', () => {
    for (let round = 0; round < 20; round++) {
      const [one, other] = [1, 2].map(() => {
        const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
        const jwk = exportPublicJwk(privateKey)
        return { privateKey, publicKey: createPublicKey(privateKey), jwk, thumbprint: jwkThumbprint(jwk) }
      })
      if (one === undefined || other === undefined) throw new Error('no keys')
      const secret = diffieHellman({ privateKey: one.privateKey, publicKey: other.publicKey })
      const info = `synguard/1${[one.thumbprint, other.thumbprint].sort().join('')}`
      const key = Buffer.from(hkdfSync('sha256', secret, Buffer.alloc(0), info, 32))
      for (const peerKey of [other.jwk, other.publicKey]) expect(sharedSecret(one.privateKey, peerKey)).toEqual(secret)
      expect(sharedSecret(other.privateKey, one.jwk)).toEqual(secret)
      expect(derivePairwiseKey(secret, one.thumbprint, other.thumbprint)).toEqual(key)
      expect(derivePairwiseKey(secret, other.thumbprint, one.thumbprint)).toEqual(key)
    }
  })
})
