/** Splits a byte stream into lines; at most maxBytes of an unfinished line are ever kept. */
export interface LineSplitter {
  /** Hands every line that `chunk` ends to onLine, without its newline. False once a line is longer than the bound. */
  push(chunk: Buffer): boolean
}

/** Lines are UTF-8; empty ones are left out. */
export function createLineSplitter(maxBytes: number, onLine: (line: string) => void): LineSplitter {
  let kept: Buffer[] = []
  let keptBytes = 0

  return {
    push(chunk) {
      let from = 0
      for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
        const last = chunk.subarray(from, end)
        from = end + 1
        if (keptBytes + last.length > maxBytes) return false
        const line = Buffer.concat([...kept, last])
          .toString('utf8')
          .trim()
        kept = []
        keptBytes = 0
        if (line !== '') onLine(line)
      }
      const rest = chunk.subarray(from)
      keptBytes += rest.length
      if (keptBytes > maxBytes) return false
      if (rest.length > 0) kept.push(rest)
      return true
    },
  }
}
