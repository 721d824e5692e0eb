/** Changes of a text as part of an input: what the text is made of stays well formed, and the damage small. */
import { isObject, type Json } from './values.ts'

/** An edit that changes nothing, for seeds. */
export const NO_EDIT: Json = { at: 0, remove: 0, insert: '' }

/** The text after edits of the form {at, remove, insert}; `at` is taken modulo the length. Others are left out. */
export function applyEdits(text: string, edits: Json | undefined): string {
  if (!Array.isArray(edits)) return text
  let edited = text
  for (const edit of edits as readonly Json[]) {
    if (!isObject(edit)) continue
    const { at, remove, insert } = edit
    const from = Math.abs(Math.trunc(Number(at) || 0)) % (edited.length + 1)
    const count = Math.max(0, Math.trunc(Number(remove) || 0))
    edited = edited.slice(0, from) + (typeof insert === 'string' ? insert : '') + edited.slice(from + count)
  }
  return edited
}
