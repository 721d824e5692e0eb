import { describe, expect, it } from '@jest/globals'
import { rehearse } from '../../../sidecar/datapath/rehearsal.ts'

describe('a rehearsal', () => {
  it('runs whole handshakes: both ends release every connection, of new peers and of known ones', () => {
    expect(rehearse(30)).toBe(60)
  })
})
