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

/** Keys of one kind that are kept at once: three do for a rotation, each emergency within it adds one; sidecars take 32. */
export const ROTATION_KEYS_MAX = 8
/** A replica that has not read the keys for so long, on a clock that only runs, signs nothing and gives out no bundle. */
export const REPLICA_FENCE_SECONDS = 30
/** A replica that has published nothing for so long acts no more: the fence, and twice the time that a request may take. */
export const REPLICA_SILENT_SECONDS = 60
/** After an emergency's new key is in use, sidecars have this long to fetch an identity by it before the old key ends. */
export const CUT_SECONDS = 60
