import { readFileSync } from 'node:fs'
import { parse, stringify } from 'yaml'
import { LABEL_INJECT } from '../api/names.ts'
import { LabError } from '../lab/errors.ts'
import { type Field, member, readLabels, readTextMap } from '../lab/field.ts'
import { readDocuments } from '../lab/manifests.ts'
import { injectManifest } from '../webhook/admission/manifest.ts'
import type { NamespaceFacts } from '../webhook/admission/namespace.ts'
import { type InjectionSettings, parseInjectionSettings } from '../webhook/admission/settings.ts'
import { readArguments, requireArgument } from './arguments.ts'

export const INJECT_HELP = `synguard inject -f FILE [--settings FILE]

Prints what the Pods of FILE (- is standard input) would become in a guarded namespace, as YAML. Workloads are shown with
their Pod template changed; other documents as they are. A Namespace in FILE is taken at its labels.

  -f, --filename FILE   manifests, several documents if need be
  --settings FILE       the webhook's injection settings (YAML); without it an example installation's

Ends with 0, with 1 where a Pod would be refused, with 2 for bad input.`

/** An installation that nobody has; the addresses are those of an ordinary cluster. */
const EXAMPLE_SETTINGS = {
  image: 'synguard-sidecar:latest',
  issuerUrl: 'https://10.96.0.20:8443',
  issuerName: 'synguard-webhook.synguard-system.svc',
}

function readFile(path: string): string {
  try {
    return readFileSync(path === '-' ? 0 : path, 'utf8')
  } catch (cause) {
    throw new LabError('lab-manifest', `${path} cannot be read`, { cause })
  }
}

function readSettings(path: string | undefined): InjectionSettings {
  if (path === undefined) {
    process.stderr.write('synguard: example settings; --settings FILE takes those of your installation\n')
    return parseInjectionSettings(EXAMPLE_SETTINGS)
  }
  return parseInjectionSettings(parse(readFile(path)))
}

function readNamespaces(documents: readonly Field[]): Map<string, NamespaceFacts> {
  const namespaces = documents.filter((document) => member(document, 'kind').value === 'Namespace')
  return new Map(
    namespaces.map((namespace) => {
      const metadata = member(namespace, 'metadata')
      const name = String(member(metadata, 'name').value)
      const labels = readLabels(member(metadata, 'labels'))
      return [name, { name, labels, annotations: readTextMap(member(metadata, 'annotations')) }]
    }),
  )
}

/** `synguard inject`; returns the exit status. */
export async function runInject(args: readonly string[]): Promise<number> {
  const options = { filename: { type: 'string', short: 'f' }, settings: { type: 'string' } } as const
  const { values } = readArguments(args, options)
  const path = requireArgument(values.filename, '-f FILE')
  const settings = readSettings(values.settings)
  const documents = readDocuments(readFile(path), path === '-' ? 'standard input' : path)
  const namespaces = readNamespaces(documents)
  const output: string[] = []
  let status = 0
  for (const document of documents) {
    const name = String(member(member(document, 'metadata'), 'namespace').value ?? 'default')
    const namespace = namespaces.get(name) ?? { name, labels: { [LABEL_INJECT]: 'enabled' }, annotations: {} }
    const injected = injectManifest(document.value, namespace, settings)
    if (injected.injection?.kind === 'refused') {
      process.stderr.write(`${document.where}: refused: ${injected.injection.reason}\n`)
      status = 1
      continue
    }
    if (injected.injection?.kind === 'skipped') {
      process.stderr.write(`${document.where}: skipped: ${injected.injection.reason}\n`)
    } else {
      for (const warning of injected.injection?.warnings ?? []) process.stderr.write(`${document.where}: ${warning}\n`)
    }
    output.push(stringify(injected.document, { lineWidth: 0 }))
  }
  process.stdout.write(output.join('---\n'))
  return status
}
