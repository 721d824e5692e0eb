/** Every bound of the webhook, with its reason. */

/** An AdmissionReview holds the old and the new object, each up to etcd's 1.5 MiB, and grows as JSON. */
export const MUTATE_BODY_BYTES = 8 * 1_048_576
/** A number and some fingerprints. */
export const ACKNOWLEDGE_BODY_BYTES = 1_024
/** A token (below 8 KiB) and a proof (2 KiB). */
export const IDENTITY_BODY_BYTES = 16_384
/** STREAM_ADDRESSES addresses of up to 45 characters, quoted. */
export const STREAM_BODY_BYTES = 1_048_576
/** A projected token; the API server's own are around 1 KiB. */
export const TOKEN_BYTES = 8_192
/** Addresses that one stream hears of: the bound of the sidecar's own cache (design, section 13). */
export const STREAM_ADDRESSES = 10_000
/** kids that a sidecar may name; a bundle has two or three. */
export const STREAM_KIDS = 32
/** A sidecar has one stream, and two for a moment while it resumes. */
export const STREAMS_PER_POD = 2
/** One stream per guarded Pod; a connection takes around 20 KiB. */
export const STREAMS = 20_000
/** A stream whose reader stalls is ended when this much waits for it; it resumes with what it holds. */
export const STREAM_BACKLOG_BYTES = 4 * 1_048_576
/** Identity requests under way, in all: each waits for a TokenReview and up to 5 s for a Pod's address. */
export const IDENTITY_IN_FLIGHT = 256
/** How long the issuer waits for what it is about to see: a Pod's address, a Pod that its watch has not shown yet. */
export const POD_WAIT_MS = 5_000
/** Proofs of one Pod that the replay cache remembers: 40 a second, for sidecars that many addresses knock at. */
export const PROOFS_PER_POD = 10_000
/** Proofs that the replay cache remembers in all: around 40 MB. */
export const PROOFS = 300_000
/** Pods in the list of voids, each some 75 bytes in a ConfigMap, which takes 1 MiB; a sidecar keeps as many. */
export const VOIDS = 10_000
/** By so many it may grow beyond: each time it is cut it is sorted. */
export const VOIDS_SLACK = 500
/** Voids of a hello message, in characters; the rest follows one by one. The client takes lines of 1 MiB. */
export const HELLO_VOIDS_CHARACTERS = 262_144
/** Over so many ConfigMaps the register of issued identities is spread: each holds 110 bytes a Pod and is written whole. */
export const REGISTER_SHARDS = 16
/** Events of one namespace at once, and how long each then takes: controllers repeat what fails, and people read few. */
export const EVENT_BURST = 20
export const EVENT_REFILL_MS = 10_000
/** Refusals that a sidecar tells of at once, and their body: it does so once a minute. */
export const REFUSALS_OF_A_REQUEST = 8
export const REFUSALS_BODY_BYTES = 65_536
/** Events of which repetitions are counted, and namespaces whose Events are: some 500 bytes each. */
export const EVENT_KEYS = 2_000
export const EVENT_NAMESPACES = 2_000
/** Connections of one replica: streams and as many short requests. */
export const CONNECTIONS = 30_000
/** Backends of a Service over all its ports, each some 500 bytes: an entry stays below the client's 1 MiB a line. */
export const SERVICE_BACKENDS = 1_000
/** Node ports of a cluster, each at most 120 bytes, for the same reason; the API server's own range has 2,768. */
export const NODE_PORTS = 8_000
