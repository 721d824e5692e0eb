/*
 * A neutral load generator: it knows nothing of Synguard.
 *
 *   load server PORT                              echo on PORT, sink on PORT+1, until its standard input ends
 *   load connect ADDRESS PORT COUNT PARALLEL      COUNT connections, PARALLEL at a time: connect, send a byte, wait for
 *                                                 its echo, close by reset
 *   load connect ADDRESS PORT COUNT PARALLEL each also prints a line for each connection that failed, took over 1 s or
 *                                                 never ended: when it began (milliseconds since 1970), its local port
 *   load bulk ADDRESS PORT SECONDS                one connection to a sink, as fast as it goes
 *
 * connect and bulk print one JSON object; times are in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STALL_MICROSECONDS 1e6
#define DEADLINE_MICROSECONDS 60e6
#define MAXIMUM_FDS 65536

static char buffer[262144];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static socklen_t parse(const char *address, int port, struct sockaddr_storage *out) {
  struct sockaddr_in *v4 = (void *)out;
  struct sockaddr_in6 *v6 = (void *)out;
  memset(out, 0, sizeof *out);
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof *v4;
  }
  if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof *v6;
  }
  fprintf(stderr, "load: %s is no address\n", address);
  exit(2);
}

static int listener(int port) {
  int one = 1, zero = 0, s = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (s < 0) die("socket");
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 4096)) die("listen");
  return s;
}

static int serve(int port) {
  static unsigned char sinking[MAXIMUM_FDS];
  int e = epoll_create1(0), echo = listener(port), sink = listener(port + 1);
  int watched[] = {echo, sink, 0};
  struct epoll_event events[256];
  for (int i = 0; i < 3; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
    epoll_ctl(e, EPOLL_CTL_ADD, watched[i], &event);
  }
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(e, events, 256, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd, accepted;
      if (fd == 0) {
        if (read(0, buffer, sizeof buffer) <= 0) return 0;
      } else if (fd == echo || fd == sink) {
        while ((accepted = accept4(fd, 0, 0, SOCK_NONBLOCK)) >= 0) {
          struct epoll_event event = {.events = EPOLLIN, .data.fd = accepted};
          if (accepted >= MAXIMUM_FDS) {
            close(accepted);
            continue;
          }
          sinking[accepted] = fd == sink;
          epoll_ctl(e, EPOLL_CTL_ADD, accepted, &event);
        }
      } else {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got <= 0 || (!sinking[fd] && write(fd, buffer, got) < 0)) close(fd);
      }
    }
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double at(const double *sorted, int count, double share) {
  return count ? sorted[(int)((count - 1) * share)] : 0;
}

static int local_port(int fd) {
  struct sockaddr_in6 a;
  socklen_t length = sizeof a;
  return getsockname(fd, (void *)&a, &length) ? 0 : ntohs(a.sin6_port);
}

/* One line for one connection; `error` is null for one that succeeded late. */
static void tell(int each, const char *what, double begun, int local, const char *error) {
  struct timespec t;
  double took = now() - begun;
  if (!each) return;
  clock_gettime(CLOCK_REALTIME, &t);
  printf("{\"event\":\"%s\",\"begunAtMs\":%.0f,\"microseconds\":%.0f,\"localPort\":%d,\"error\":\"%s\"}\n", what,
         t.tv_sec * 1e3 + t.tv_nsec / 1e6 - took / 1e3, took, local, error ? error : "");
}

static int connect_many(const char *address, int port, int count, int parallel, int each) {
  static double begun[MAXIMUM_FDS];
  static int ports[MAXIMUM_FDS];
  static unsigned char connected[MAXIMUM_FDS], busy[MAXIMUM_FDS];
  struct sockaddr_storage to;
  socklen_t length = parse(address, port, &to);
  double *echo = calloc(count, sizeof *echo), *set_up = calloc(count, sizeof *set_up);
  int e = epoll_create1(0), started = 0, done = 0, failed = 0, stalls = 0, echoes = 0, set_ups = 0, first_error = 0, slowest_port = 0;
  double slowest = 0;
  struct epoll_event events[256];
  double start = now();
  if (parallel > 1024) parallel = 1024;
  while (done < count && now() - start < DEADLINE_MICROSECONDS) {
    while (started < count && started - done < parallel) {
      struct linger reset = {1, 0};
      int one = 1, fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
      struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
      if (fd < 0) die("socket");
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      begun[fd] = now();
      connected[fd] = 0;
      busy[fd] = 1;
      if (connect(fd, (void *)&to, length) && errno != EINPROGRESS) {
        int error = errno;
        if (!first_error) first_error = error;
        tell(each, "failure", begun[fd], local_port(fd), strerror(error));
        failed++;
        done++;
        busy[fd] = 0;
        close(fd);
      } else {
        // A socket whose connection failed no longer says which port it had.
        if (each) ports[fd] = local_port(fd);
        epoll_ctl(e, EPOLL_CTL_ADD, fd, &event);
      }
      started++;
    }
    int n = epoll_wait(e, events, 256, 1000);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      double took = now() - begun[fd];
      if (!connected[fd]) {
        int error = 0;
        socklen_t size = sizeof error;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (!error && write(fd, "x", 1) == 1) {
          set_up[set_ups++] = took;
          connected[fd] = 1;
          epoll_ctl(e, EPOLL_CTL_MOD, fd, &event);
          continue;
        }
        if (!error) error = errno;
        if (!first_error) first_error = error;
        tell(each, "failure", begun[fd], ports[fd], strerror(error));
        failed++;
        slowest_port = local_port(fd);
        slowest = 1e18;
      } else if (read(fd, buffer, sizeof buffer) == 1) {
        echo[echoes++] = took;
        if (took > STALL_MICROSECONDS) {
          stalls++;
          tell(each, "stall", begun[fd], ports[fd], 0);
        }
        if (took > slowest) {
          slowest = took;
          slowest_port = local_port(fd);
        }
      } else {
        int error = errno;
        if (!first_error) first_error = error;
        tell(each, "failure", begun[fd], ports[fd], error ? strerror(error) : "closed");
        failed++;
        slowest_port = local_port(fd);
        slowest = 1e18;
      }
      done++;
      busy[fd] = 0;
      close(fd);
    }
  }
  for (int fd = 0; fd < MAXIMUM_FDS && done < count; fd++)
    if (busy[fd]) {
      slowest_port = local_port(fd);
      tell(each, "unfinished", begun[fd], ports[fd], 0);
    }
  double seconds = (now() - start) / 1e6;
  qsort(echo, echoes, sizeof *echo, ascending);
  qsort(set_up, set_ups, sizeof *set_up, ascending);
  printf("{\"connections\":%d,\"succeeded\":%d,\"failed\":%d,\"unfinished\":%d,\"stalls\":%d,\"perSecond\":%.0f,"
         "\"echoP50\":%.1f,\"echoP99\":%.1f,\"echoMaximum\":%.1f,\"connectP50\":%.1f,\"connectP99\":%.1f,\"slowestPort\":%d,\"firstError\":\"%s\"}\n",
         count, echoes, failed, count - done, stalls, echoes / seconds, at(echo, echoes, 0.5), at(echo, echoes, 0.99),
         at(echo, echoes, 1), at(set_up, set_ups, 0.5), at(set_up, set_ups, 0.99), slowest_port,
         first_error ? strerror(first_error) : "");
  return 0;
}

static int bulk(const char *address, int port, double seconds) {
  struct sockaddr_storage to;
  socklen_t length = parse(address, port, &to);
  int fd = socket(to.ss_family, SOCK_STREAM, 0);
  double start, end, bytes = 0;
  if (fd < 0 || connect(fd, (void *)&to, length)) die("connect");
  start = now();
  end = start + seconds * 1e6;
  while (now() < end) {
    ssize_t sent = write(fd, buffer, sizeof buffer);
    if (sent <= 0) die("write");
    bytes += sent;
  }
  printf("{\"bytes\":%.0f,\"gigabitsPerSecond\":%.3f}\n", bytes, bytes * 8 / (now() - start) / 1e3);
  return 0;
}

int main(int count, char **arguments) {
  if (count == 3 && !strcmp(arguments[1], "server")) return serve(atoi(arguments[2]));
  if ((count == 6 || (count == 7 && !strcmp(arguments[6], "each"))) && !strcmp(arguments[1], "connect"))
    return connect_many(arguments[2], atoi(arguments[3]), atoi(arguments[4]), atoi(arguments[5]), count == 7);
  if (count == 5 && !strcmp(arguments[1], "bulk")) return bulk(arguments[2], atoi(arguments[3]), atof(arguments[4]));
  fprintf(stderr, "usage: load server PORT | connect ADDRESS PORT COUNT PARALLEL [each] | bulk ADDRESS PORT SECONDS\n");
  return 2;
}
