/** nginx, Redis and PostgreSQL as Debian has them, with their own clients: guarded, with nothing changed in them. */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { V1Container } from '@kubernetes/client-node'
import { awaitGuarded, cleanUp, install, OWNS_NODE } from './installation.ts'
import { apply, kubectl, until } from './kubectl.ts'
import { importStores } from './node.ts'
import { admit, deployment, GUARDED, namespace, podSpec, policy, service } from './objects.ts'
import { awaitRollouts, containersOf, firstPod, run } from './pods.ts'

const AT = 'stores'
const APPS = ['nginx', 'redis', 'postgres', 'client', 'stranger']

const store = (command: string, more: Partial<V1Container> = {}): V1Container => ({
  name: 'app',
  image: 'stores:local',
  imagePullPolicy: 'Never',
  command: ['busybox', 'sh', '-c', command],
  ...more,
})
const ready = (...command: string[]) => ({ readinessProbe: { exec: { command }, periodSeconds: 1, timeoutSeconds: 5 } })
const served = (port: number) => ({ ports: [{ name: 'store', containerPort: port }] })
const AS_STORE = { securityContext: { runAsUser: 999, runAsGroup: 999 } }

const NGINX = `
busybox mkdir -p /tmp/www && echo 'from nginx' > /tmp/www/index.html
busybox cat > /tmp/nginx.conf <<'END'
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 8080; root /tmp/www; keepalive_timeout 65; }
}
END
exec nginx -c /tmp/nginx.conf -g 'daemon off;'`
const POSTGRES = `
initdb -D /tmp/data -A trust -U postgres >/dev/null && echo 'host all all 0.0.0.0/0 trust' >> /tmp/data/pg_hba.conf
exec postgres -D /tmp/data -h 0.0.0.0 -k /tmp`

const inAPod = (command: string, ...more: Partial<V1Container>[]) => podSpec(store(command, Object.assign({}, ...more)))
const toStore = (app: string, port: number) => service(AT, app, { ports: [{ port, targetPort: 'store' }] })

const client = (...command: string[]) => run(AT, 'client', 'busybox', 'timeout', '20', ...command)
const stranger = (...command: string[]) => run(AT, 'stranger', 'busybox', 'timeout', '20', ...command)
const psql = (...statements: string[]) => [
  ...['psql', '-h', `postgres.${AT}`, '-U', 'postgres', '-At'],
  ...statements.flatMap((statement) => ['-c', statement]),
]
const redis = (...command: string[]) => ['redis-cli', '-h', `redis.${AT}`, ...command]
const wget = () => ['busybox', 'wget', '-q', '-O', '-', `http://nginx.${AT}:8080/`]

;(OWNS_NODE ? describe : describe.skip)('nginx, Redis and PostgreSQL', () => {
  beforeAll(async () => {
    await importStores()
    await install()
    await apply(namespace(AT, GUARDED))
    await awaitGuarded(AT)
    await apply(
      policy(AT, 'deny-ingress', { podSelector: {}, policyTypes: ['Ingress'] }),
      admit(AT, 'nginx', 'client', 'store'),
      admit(AT, 'redis', 'client', 'store'),
      admit(AT, 'postgres', 'client', 'store'),
      deployment(
        AT,
        'nginx',
        inAPod(NGINX, served(8080), { readinessProbe: { httpGet: { path: '/', port: 'store' } } }),
      ),
      deployment(
        AT,
        'redis',
        inAPod(
          "exec redis-server --port 6379 --save '' --protected-mode no --dir /tmp",
          served(6379),
          ready('redis-cli', 'ping'),
        ),
      ),
      deployment(AT, 'postgres', inAPod(POSTGRES, AS_STORE, served(5432), ready('pg_isready', '-h', '127.0.0.1'))),
      toStore('nginx', 8080),
      toStore('redis', 6379),
      toStore('postgres', 5432),
      deployment(AT, 'client', inAPod('exec busybox sleep 1000000')),
      deployment(AT, 'stranger', inAPod('exec busybox sleep 1000000')),
    )
    await awaitRollouts(AT, ...APPS)
  })
  afterAll(() => cleanUp([AT]))

  it('are guarded, and ready with the probes that they have', async () => {
    for (const app of APPS) {
      expect(containersOf(await firstPod(AT, app))).toEqual(['synguard-init', 'synguard-sidecar', 'app'])
    }
  })

  it('serve the client that policies admit, by named ports', async () => {
    expect(await client(...wget())).toMatchObject({ code: 0, stdout: 'from nginx\n' })
    expect((await client(...redis('set', 'key', 'value'))).stdout).toBe('OK\n')
    expect((await client(...redis('get', 'key'))).stdout).toBe('value\n')
    const created = await client(
      ...psql('create table items (id serial, name text)', "insert into items (name) values ('one'), ('two')"),
    )
    expect(created).toMatchObject({ code: 0, stdout: 'CREATE TABLE\nINSERT 0 2\n' })
    expect((await client(...psql('select count(*) from items'))).stdout).toBe('2\n')
  })

  it('refuse who is not admitted, at the handshake', async () => {
    for (const command of [wget(), redis('get', 'key'), psql('select 1')]) {
      const { code, stdout, stderr } = await stranger(...command)
      expect([code === 0, stdout.includes('value'), `${stdout}${stderr}`]).toEqual([
        false,
        false,
        expect.stringMatching(/refused/i),
      ])
    }
  })

  it('carry their own load without an error: 200 transactions on connections of their own, 40,000 commands', async () => {
    const bench = await client('pgbench', '-h', `postgres.${AT}`, '-U', 'postgres', '-i', '-q', 'postgres')
    expect(bench.code).toBe(0)
    const transactions = await client(
      ...['pgbench', '-h', `postgres.${AT}`, '-U', 'postgres', '-C', '-c', '4', '-t', '50', 'postgres'],
    )
    expect(transactions).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/number of transactions actually processed: 200\/200/),
    })
    const commands = await client(
      'redis-benchmark',
      '-h',
      `redis.${AT}`,
      '-q',
      '-n',
      '20000',
      '-t',
      'get,set',
      '-c',
      '50',
    )
    expect(commands).toMatchObject({ code: 0, stdout: expect.stringMatching(/GET: .* requests per second/) })
  })

  it('lose their connections when a policy takes the permission away', async () => {
    const waiting = client(...psql('select pg_sleep(60)'))
    await until('the query to run', async () => {
      const { stdout } = await client(
        ...psql("select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"),
      )
      return stdout.trim() === '1'
    })
    await kubectl('-n', AT, 'delete', 'networkpolicy/postgres-admits-client')
    const { code, stderr } = await waiting
    expect([code === 0, stderr]).toEqual([false, expect.stringMatching(/reset|closed|terminated/i)])
  })
})
