/** The names of Kubernetes: k8s.io/apimachinery/pkg/util/validation. Each returns what is wrong, undefined if nothing. */

const DNS_LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/
const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const LABEL_NAME = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/

/** RFC 1123 label: names of namespaces. */
export function dnsLabelProblem(text: string): string | undefined {
  if (text.length > 63) return `has ${text.length} characters; 63 are allowed`
  return DNS_LABEL.test(text) ? undefined : 'must be lower case letters, digits and "-", and begin and end with no "-"'
}

/** RFC 1123 subdomain: names of policies. */
export function dnsSubdomainProblem(text: string): string | undefined {
  if (text.length > 253) return `has ${text.length} characters; 253 are allowed`
  return DNS_SUBDOMAIN.test(text)
    ? undefined
    : 'must be lower case letters, digits, "-" and ".", and begin and end each part with a letter or digit'
}

/** A label's key: an optional DNS subdomain and "/", then a name. */
export function labelKeyProblem(key: string): string | undefined {
  const slash = key.indexOf('/')
  const name = key.slice(slash + 1)
  if (slash >= 0) {
    const problem = dnsSubdomainProblem(key.slice(0, slash))
    if (problem !== undefined) return `has a prefix that ${problem}`
  }
  if (name.length > 63) return `has a name of ${name.length} characters; 63 are allowed`
  return LABEL_NAME.test(name)
    ? undefined
    : 'must be letters, digits, "-", "_" and ".", begin and end with a letter or digit, after at most one "/"'
}

/** A label's value; it may be empty. */
export function labelValueProblem(value: string): string | undefined {
  if (value.length > 63) return `has ${value.length} characters; 63 are allowed`
  return value === '' || LABEL_NAME.test(value)
    ? undefined
    : 'must be letters, digits, "-", "_" and ".", and begin and end with a letter or digit'
}

/** A port's name (IANA service name, RFC 6335 section 5.1). */
export function portNameProblem(name: string): string | undefined {
  if (/^\d+$/.test(name)) return 'is a number in quotes; remove the quotes'
  if (name.length > 15) return `has ${name.length} characters; 15 are allowed`
  const valid = /^[-a-z0-9]+$/.test(name) && /[a-z]/.test(name) && !/--|^-|-$/.test(name)
  return valid ? undefined : 'must be lower case letters, digits and single "-" between them, with a letter'
}
