import { WitError } from './errors.ts'
import { WIT_INFLATED_BYTES, WIT_PARTS_BYTES } from './limits.ts'

/** A WIT as it travels in a frame: the decoded parts of its compact form. */
export interface WitParts {
  readonly header: Buffer
  readonly payload: Buffer
  readonly signature: Buffer
}

/** Bytes of header, payload and signature: what a frame has to carry. */
export function witPartsBytes(parts: WitParts): number {
  return parts.header.length + parts.payload.length + parts.signature.length
}

/**
 * The decoded parts of a compact JWS (RFC 7515, section 7.1). Throws WitError `wit-format` unless joinWitParts gives
 * back exactly `compact`, and `wit-too-large` above WIT_PARTS_BYTES.
 */
export function decodeWitParts(compact: string): WitParts {
  // Longer than any token: not worth decoding.
  if (compact.length > 2 * WIT_INFLATED_BYTES) throw tooLarge(compact.length)
  const texts = compact.split('.')
  const [header, payload, signature] = texts.map((text) => Buffer.from(text, 'base64url'))
  if (texts.length !== 3 || header === undefined || payload === undefined || signature === undefined) {
    throw new WitError('wit-format', `A compact token has 3 parts, this one ${texts.length}.`)
  }
  const parts = { header, payload, signature }
  if (joinWitParts(parts) !== compact) throw new WitError('wit-format', 'The token is not canonical base64url.')
  return checkWitParts(parts)
}

/** The parts themselves. Throws WitError `wit-format` where one is empty, `wit-too-large` above WIT_PARTS_BYTES. */
export function checkWitParts(parts: WitParts): WitParts {
  if (parts.header.length === 0 || parts.payload.length === 0 || parts.signature.length === 0) {
    throw new WitError('wit-format', 'The token has an empty part.')
  }
  if (witPartsBytes(parts) > WIT_PARTS_BYTES) throw tooLarge(witPartsBytes(parts))
  return parts
}

/**
 * The exact compact form of which `parts` were decoded: canonical base64url without padding has one text for given
 * bytes, so header, payload and signature bytes lose nothing. Never throws.
 */
export function joinWitParts(parts: WitParts): string {
  return `${parts.header.toString('base64url')}.${parts.payload.toString('base64url')}.${parts.signature.toString('base64url')}`
}

function tooLarge(bytes: number): WitError {
  return new WitError('wit-too-large', `The token has ${bytes} bytes, a frame carries ${WIT_PARTS_BYTES}.`)
}
