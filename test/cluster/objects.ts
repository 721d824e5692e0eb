/** Workloads and policies as an application team writes them: nothing in them knows of Synguard. */
import type { V1Container, V1PodSpec } from '@kubernetes/client-node'

export const IMAGE = process.env.SYNGUARD_TEST_IMAGE ?? 'busybox:local'

export function namespace(name: string, labels: Record<string, string> = {}): object {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }
}

export const GUARDED = { 'synguard.io/inject': 'enabled' }

/** A container that sleeps until it is told to end; commands are run in it. */
export function sleeper(more: Partial<V1Container> = {}): V1Container {
  return { name: 'app', image: IMAGE, imagePullPolicy: 'IfNotPresent', command: ['sleep', '1000000'], ...more }
}

/** Answers HTTP on 8080 with its Pod's name. */
export function httpServer(more: Partial<V1Container> = {}): V1Container {
  return sleeper({
    command: ['sh', '-c', 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp'],
    ports: [{ name: 'http', containerPort: 8080 }],
    readinessProbe: { httpGet: { path: '/', port: 'http' }, periodSeconds: 1 },
    ...more,
  })
}

export function podSpec(container: V1Container, more: Partial<V1PodSpec> = {}): V1PodSpec {
  return { terminationGracePeriodSeconds: 0, containers: [container], ...more }
}

export function deployment(at: string, app: string, spec: V1PodSpec, replicas = 1): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: app, namespace: at },
    spec: {
      replicas,
      selector: { matchLabels: { app } },
      template: { metadata: { labels: { app } }, spec },
    },
  }
}

export function service(at: string, app: string, more: Record<string, unknown> = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: app, namespace: at },
    spec: { selector: { app }, ports: [{ port: 80, targetPort: 'http' }], ...more },
  }
}

/** The client's own type has another name for `from`. */
export function policy(at: string, name: string, spec: object): object {
  return { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace: at }, spec }
}

/** Lets Pods with the one label in on a port from Pods with the other. */
export function admit(at: string, app: string, from: string, port: number | string = 8080): object {
  return policy(at, `${app}-admits-${from}`, {
    podSelector: { matchLabels: { app } },
    policyTypes: ['Ingress'],
    ingress: [
      {
        from: [{ podSelector: { matchLabels: { app: from } } }],
        ports: [{ port }],
      },
    ],
  })
}
