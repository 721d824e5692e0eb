/**
 * Checks that untrusted JSON has the shape that the code reads. Null counts as absent, as it does for Kubernetes' own
 * decoder. Fields that nobody reads are not looked at, so that newer Kubernetes fields pass.
 */

import type { AdmissionErrorCode } from './errors.ts'
import { AdmissionError } from './errors.ts'

/** Throws AdmissionError with the given code where `value` has the wrong type. */
export type Check = (value: unknown, field: string, code: AdmissionErrorCode) => void

export type JsonObject = { [key: string]: unknown }

/** Whether the value is a JSON object (not null, not a list). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function typeCheck(type: 'string' | 'number' | 'boolean'): Check {
  return (value, field, code) => {
    if (value !== undefined && value !== null && typeof value !== type) {
      throw new AdmissionError(code, `${field} must be a ${type}`)
    }
  }
}

export const text = typeCheck('string')
export const number = typeCheck('number')
export const flag = typeCheck('boolean')

/** A number, or text (Kubernetes' IntOrString and quantities). */
export const numberOrText: Check = (value, field, code) => {
  if (typeof value !== 'number') text(value, field, code)
}

/** The field must be there. */
export function required(check: Check): Check {
  return (value, field, code) => {
    if (value === undefined || value === null) throw new AdmissionError(code, `${field || 'the object'} is missing`)
    check(value, field, code)
  }
}

export function object(fields: Readonly<Record<string, Check>>): Check {
  return (value, field, code) => {
    if (value === undefined || value === null) return
    if (!isJsonObject(value)) throw new AdmissionError(code, `${field || 'the object'} must be an object`)
    for (const [name, check] of Object.entries(fields)) {
      check(Object.hasOwn(value, name) ? value[name] : undefined, field === '' ? name : `${field}.${name}`, code)
    }
  }
}

export function list(item: Check): Check {
  return (value, field, code) => {
    if (value === undefined || value === null) return
    if (!Array.isArray(value)) throw new AdmissionError(code, `${field} must be a list`)
    for (const [index, element] of value.entries()) required(item)(element, `${field}[${index}]`, code)
  }
}

export function map(item: Check): Check {
  return (value, field, code) => {
    if (value === undefined || value === null) return
    if (!isJsonObject(value)) throw new AdmissionError(code, `${field || 'the object'} must be an object`)
    for (const [key, element] of Object.entries(value)) required(item)(element, `${field}[${key}]`, code)
  }
}
