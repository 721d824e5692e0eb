/** Every bound of tokens and certificates, with its reason. */

/** Header, payload and signature bytes together: with nonce, MAC and addresses a frame stays within 1,180 bytes. */
export const WIT_PARTS_BYTES = 1_000
/** The payload inflated: DEFLATE grows up to 1,032 times, so a bound is what stops a bomb. */
export const WIT_INFLATED_BYTES = 4_096
/** An ES256 signature (RFC 7518, section 3.4). */
export const WIT_SIGNATURE_BYTES = 64
/** Clocks of nodes may differ by this much before tokens are refused. */
export const SKEW_SECONDS = 120
/** What a setting may ask for: shorter lives leave no time to renew. A Pod that is being deleted may get less. */
export const WIT_LIFETIME_MIN_SECONDS = 20
/** Longer lives make revocation depend on void lists alone. */
export const WIT_LIFETIME_MAX_SECONDS = 86_400
/** Labels of one Pod or one namespace: far above what fits 4 KiB; bounds the validator's work. */
export const LABELS_MAX = 128
/** Named ports of a Pod; same reason. */
export const PORTS_MAX = 128
/** Reasons why a Pod is degraded. */
export const DEGRADED_MAX = 16
/** A proof is used at once; what is left is the difference of two clocks. */
export const PROOF_AGE_SECONDS = 120
/** A compact proof: header with a public JWK, a path with an IPv6 address, a 64 byte signature. */
export const PROOF_BYTES = 2_048
