import { describe, expect, it } from '@jest/globals'
import { listSources, PRODUCT, readTables, readText } from './checkout.ts'

type Names = Readonly<Record<string, string>>

const manifest = JSON.parse(readText('package.json')) as {
  readonly dependencies: Names
  readonly devDependencies: Names
  readonly optionalDependencies: Names
}
const tables = readTables(readText('docs/dependencies.md'))

describe('docs/dependencies.md', () => {
  it.each([
    ['run time', 0, manifest.dependencies],
    ['development', 1, manifest.devDependencies],
    ['optional', 2, manifest.optionalDependencies],
  ] as const)('names each %s dependency of package.json, and no other, with a reason', (_, table, dependencies) => {
    const rows = tables[table] ?? []
    expect(rows.map(([name = '']) => name.replaceAll('`', '')).sort()).toEqual(Object.keys(dependencies).sort())
    expect(rows.filter(([, reason = '']) => reason === '')).toEqual([])
  })
})

describe('package.json', () => {
  it('pins exact versions', () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest
    const versions = Object.values({ ...dependencies, ...devDependencies, ...optionalDependencies })
    expect(versions.filter((version) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([])
  })

  it('has no two optional packages with a program of one name: npm before 11 then links neither', () => {
    const lock = JSON.parse(readText('package-lock.json')) as {
      readonly packages: Readonly<Record<string, { readonly bin?: Names }>>
    }
    const programs = Object.keys(manifest.optionalDependencies).flatMap((name) =>
      Object.keys(lock.packages[`node_modules/${name}`]?.bin ?? {}),
    )
    expect(programs).toEqual([...new Set(programs)])
  })

  it('has each package that the product imports among its run time dependencies', () => {
    const sources = listSources(PRODUCT)
    const imported = new Set(
      sources.flatMap((path) =>
        [...readText(path).matchAll(/\bfrom '(@[^/']+\/[^/']+|[^./'@][^/']*)/g)].map(([, name = '']) => name),
      ),
    )
    const packages = [...imported].filter((name) => !name.startsWith('node:'))
    expect(packages.sort()).toEqual(Object.keys(manifest.dependencies).sort())
  })
})
