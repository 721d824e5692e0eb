import { describe, expect, it } from '@jest/globals'
import {
  NEEDED_CPU_CORES,
  NEEDED_MEMORY_BYTES,
  type ResourceLimits,
  readLimits,
  warnOfLimits,
} from '../../../sidecar/control/limits.ts'

const limitsOf = (files: Readonly<Record<string, string>>): ResourceLimits => readLimits((path) => files[path])
const NONE = { memoryBytes: undefined, cpuCores: undefined }
const V1_GROUPS = '4:memory:/pods/a\n2:cpu,cpuacct:/pods/a\n0::/'

describe('the limits of the control group', () => {
  it.each<readonly [string, Readonly<Record<string, string>>, ResourceLimits]>([
    [
      'are those of version 2 in a cgroup namespace',
      {
        '/proc/self/cgroup': '0::/',
        '/sys/fs/cgroup/memory.max': '67108864',
        '/sys/fs/cgroup/cpu.max': '10000 100000',
      },
      { memoryBytes: 64 << 20, cpuCores: 0.1 },
    ],
    [
      'are those of the own group where the whole tree of version 2 is seen',
      {
        '/proc/self/cgroup': '0::/pods/a',
        '/sys/fs/cgroup/memory.max': '1',
        '/sys/fs/cgroup/pods/a/memory.max': '67108864',
        '/sys/fs/cgroup/pods/a/cpu.max': 'max 100000',
      },
      { memoryBytes: 64 << 20, cpuCores: undefined },
    ],
    [
      'are those of version 1 where the whole tree is seen',
      {
        '/proc/self/cgroup': V1_GROUPS,
        '/sys/fs/cgroup/memory/pods/a/memory.limit_in_bytes': '67108864',
        '/sys/fs/cgroup/cpu/pods/a/cpu.cfs_quota_us': '25000',
        '/sys/fs/cgroup/cpu/pods/a/cpu.cfs_period_us': '100000',
      },
      { memoryBytes: 64 << 20, cpuCores: 0.25 },
    ],
    [
      'are those of version 1 where the container sees its own group alone',
      {
        '/proc/self/cgroup': V1_GROUPS,
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '67108864',
        '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
        '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000',
      },
      { memoryBytes: 64 << 20, cpuCores: undefined },
    ],
    [
      'are none where version 1 says so by a number above any memory',
      {
        '/proc/self/cgroup': V1_GROUPS,
        '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
      },
      NONE,
    ],
    [
      'are none where version 2 says max',
      { '/sys/fs/cgroup/memory.max': 'max', '/sys/fs/cgroup/cpu.max': 'max 1' },
      NONE,
    ],
    ['are none where nothing can be read', {}, NONE],
  ])('%s', (_what, files, expected) => {
    expect(limitsOf(files)).toEqual(expected)
  })
})

describe('a limit that is too low', () => {
  const warningsOf = (limits: ResourceLimits): unknown[] => {
    const lines: unknown[] = []
    warnOfLimits(limits, { warn: (...line: unknown[]) => void lines.push(line) })
    return lines
  }

  it('is said, with what there is and what is needed', () => {
    expect(warningsOf({ memoryBytes: 64 << 20, cpuCores: 0.1 })).toEqual([
      [
        { memoryLimitMebibytes: 64, neededMebibytes: 96 },
        'the memory limit is low: with many peers the kernel kills the sidecar, and nothing new is opened until it is back',
      ],
      [{ cpuLimitCores: 0.1, neededCores: 0.25 }, 'the CPU limit is low: connections are set up slowly, or fail'],
    ])
  })

  it('is none where there is enough, or no limit', () => {
    expect(warningsOf({ memoryBytes: NEEDED_MEMORY_BYTES, cpuCores: NEEDED_CPU_CORES })).toEqual([])
    expect(warningsOf(NONE)).toEqual([])
  })
})
