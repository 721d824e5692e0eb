/** Label selectors as k8s.io/apimachinery/pkg/labels has them (Requirement.Matches). */

import type { Labels } from '../api/identity.ts'
import type { LabelRequirement, LabelSelector } from './types.ts'

/**
 * Whether a selector matches a set of labels. A null selector (undefined) matches nothing, the empty one everything
 * (metav1.LabelSelectorAsSelector).
 */
export function matchesSelector(selector: LabelSelector | undefined, labels: Labels): boolean {
  if (selector === undefined) return false
  for (const requirement of selector) if (!matchesRequirement(requirement, labels)) return false
  return true
}

/** The first requirement that the labels do not meet, undefined where they meet all. */
export function failedRequirement(selector: LabelSelector, labels: Labels): LabelRequirement | undefined {
  return selector.find((requirement) => !matchesRequirement(requirement, labels))
}

function matchesRequirement(requirement: LabelRequirement, labels: Labels): boolean {
  // Own keys only: `constructor` is a valid label key.
  const present = Object.hasOwn(labels, requirement.key)
  switch (requirement.operator) {
    case 'Exists':
      return present
    case 'DoesNotExist':
      return !present
    case 'In':
      return present && requirement.values.includes(labels[requirement.key] ?? '')
    case 'NotIn':
      // An absent key has none of the values.
      return !present || !requirement.values.includes(labels[requirement.key] ?? '')
  }
}

/** A selector as people write it on kubectl's command line: `app=web,tier in (a,b),!legacy`; `all` for the empty one. */
export function formatSelector(selector: LabelSelector): string {
  return selector.length === 0 ? 'all' : selector.map(formatRequirement).join(',')
}

/** One requirement in kubectl's notation. */
export function formatRequirement({ key, operator, values }: LabelRequirement): string {
  switch (operator) {
    case 'Exists':
      return key
    case 'DoesNotExist':
      return `!${key}`
    case 'In':
      return values.length === 1 ? `${key}=${values[0]}` : `${key} in (${values.join(',')})`
    case 'NotIn':
      return values.length === 1 ? `${key}!=${values[0]}` : `${key} notin (${values.join(',')})`
  }
}
