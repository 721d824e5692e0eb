/**
 * `npm run build [-- FOLDER]`: bundles what runs in a cluster, and the command line, into dist/, which is made
 * anew, or FOLDER, which must be empty or missing. `sidecar/` and `webhook/` are complete: copied elsewhere they need Node
 * 26 and nothing else.
 */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { build } from 'esbuild'

const CHECKOUT = resolve(import.meta.dirname, '..')

/** Entry point to the folder of its bundle. The worker lies beside main.js, where the sidecar looks for it. */
const ENTRIES = [
  { source: 'sidecar/main.ts', folder: 'sidecar', name: 'main' },
  { source: 'sidecar/datapath/worker.ts', folder: 'sidecar', name: 'worker' },
  { source: 'sidecar/init.ts', folder: 'sidecar', name: 'init' },
  { source: 'webhook/main.ts', folder: 'webhook', name: 'main' },
  { source: 'cli/main.ts', folder: 'cli', name: 'synguard' },
] as const

/** CommonJS packages in an ES module still ask for Node's own modules by require. */
const REQUIRE =
  "import { createRequire as createRequireOf } from 'node:module'\nconst require = createRequireOf(import.meta.url)"

async function bundle(folder: string): Promise<void> {
  for (const entry of ENTRIES) {
    await build({
      absWorkingDir: CHECKOUT,
      entryPoints: [entry.source],
      outfile: join(folder, entry.folder, `${entry.name}.js`),
      bundle: true,
      platform: 'node',
      target: 'node26',
      format: 'esm',
      banner: { js: REQUIRE },
      // koffi loads a native library that lies beside its own file.
      external: ['koffi'],
      // Names stay: errors and logs show them.
      minifyWhitespace: true,
      minifySyntax: true,
      legalComments: 'eof',
      logLevel: 'warning',
    })
  }
}

/** koffi's JavaScript and its native library for this machine's architecture, without its C++ sources. */
function copyKoffi(to: string): void {
  const modules = join(CHECKOUT, 'node_modules')
  const isNeeded = (path: string): boolean => statSync(path).isDirectory() || /\.(js|cjs|json|node|txt)$/.test(path)
  const isVendored = (path: string): boolean => ['doc', 'vendor', 'lib', 'abi', 'cnoke.cjs'].includes(basename(path))
  cpSync(join(modules, 'koffi'), join(to, 'koffi'), {
    recursive: true,
    filter: (path) => !isVendored(path) && isNeeded(path),
  })
  for (const name of readdirSync(join(modules, '@koromix'))) {
    if (!name.startsWith('koffi-')) continue
    cpSync(join(modules, '@koromix', name), join(to, '@koromix', name), { recursive: true, filter: isNeeded })
  }
}

/** Files below a folder, as paths relative to it. */
function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort()
}

const [given] = process.argv.slice(2)
const target = resolve(given ?? join(CHECKOUT, 'dist'))
if (given === undefined) rmSync(target, { recursive: true, force: true })
else if (existsSync(target) && readdirSync(target).length > 0) {
  process.stderr.write(`synguard: ${target} is not empty; name an empty folder\n`)
  process.exit(2)
}
await bundle(target)
copyKoffi(join(target, 'sidecar', 'node_modules'))
const { name, version, license } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8'))
for (const folder of [target, join(target, 'sidecar'), join(target, 'webhook')]) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ name, version, license, type: 'module' })}\n`)
}
for (const file of listFiles(target)) {
  if (!/\.(js|node)$/.test(file)) continue
  process.stdout.write(`${String(Math.ceil(statSync(join(target, file)).size / 1024)).padStart(6)} KiB  ${file}\n`)
}
