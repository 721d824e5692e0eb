/** The namespaces of the field. */

/** Guarded, and the namespace whose policies grow. */
export const SERVERS = 'servers'
/** Guarded, without policies: its Pods read a folder of their own. */
export const CALLERS = 'callers'
/** Not guarded. */
export const PLAIN = 'plain'
