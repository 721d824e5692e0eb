/*
 * Datagrams as resolvers send them: each query from a socket, and so a port, of its own.
 *
 *   dns serve PORT                            answers each query with itself, marked as an answer; ends with its input
 *   dns ask ADDRESS PORT PER_SECOND COUNT     queries at a steady rate; waits 5 s for what is missing at the end
 *   dns flood ADDRESS PER_SECOND SECONDS BYTES   datagrams from one socket to the ports from 1024 on, one after the other
 *
 * `serve` says "ready". The others print one JSON object; times are in milliseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXIMUM_COUNT 100000
#define PATIENCE_MILLISECONDS 5000
#define FLOOD_PORTS 60000

/* A question for the address of "svc.cluster.local" (RFC 1035 section 4): 12 bytes of header, name, type A, class IN. */
static const unsigned char QUERY[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 's', 'v', 'c', 7, 'c', 'l', 'u', 's', 't',
                                      'e', 'r', 5, 'l', 'o', 'c', 'a', 'l', 0, 0, 1, 0, 1};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static struct sockaddr_in parse(const char *address, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, address, &a.sin_addr) == 1) return a;
  fprintf(stderr, "dns: %s is no IPv4 address\n", address);
  exit(2);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int serve(int port) {
  int s = socket(AF_INET, SOCK_DGRAM, 0), room = 8 << 20, e = epoll_create1(0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct epoll_event input = {.events = EPOLLIN, .data.fd = 0}, queries = {.events = EPOLLIN, .data.fd = s};
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  if (bind(s, (void *)&any, sizeof any)) return perror("bind"), 1;
  epoll_ctl(e, EPOLL_CTL_ADD, 0, &input);
  epoll_ctl(e, EPOLL_CTL_ADD, s, &queries);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    struct epoll_event event;
    unsigned char query[2048];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    if (epoll_wait(e, &event, 1, -1) < 1) continue;
    if (event.data.fd == 0) {
      if (read(0, query, sizeof query) <= 0) return 0;
      continue;
    }
    ssize_t got = recvfrom(s, query, sizeof query, 0, (void *)&from, &length);
    if (got < 12) continue;
    query[2] |= 0x80; /* QR: this is a response */
    sendto(s, query, got, 0, (void *)&from, length);
  }
}

static int ask(struct sockaddr_in to, double rate, int count) {
  static double begun[MAXIMUM_COUNT], took[MAXIMUM_COUNT];
  static int sockets[MAXIMUM_COUNT];
  int e = epoll_create1(0), started = 0, open = 0, answered = 0, wrong = 0, first_error = 0;
  double start = now(), end = start + count * 1e3 / rate + PATIENCE_MILLISECONDS;
  if (count < 1 || count > MAXIMUM_COUNT || rate <= 0) return 2;
  while ((started < count || open > 0) && now() < end) {
    struct epoll_event events[256];
    for (; started < count && started < (now() - start) * rate / 1e3 + 1; started++) {
      unsigned char query[sizeof QUERY];
      struct epoll_event event = {.events = EPOLLIN, .data.u32 = started};
      int s = sockets[started] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
      memcpy(query, QUERY, sizeof QUERY);
      query[0] = started >> 8, query[1] = started;
      begun[started] = now();
      if (s < 0 || connect(s, (void *)&to, sizeof to) || send(s, query, sizeof query, 0) < 0) {
        if (!first_error) first_error = errno;
        if (s >= 0) close(s);
        continue;
      }
      open++;
      epoll_ctl(e, EPOLL_CTL_ADD, s, &event);
    }
    int ready = epoll_wait(e, events, 256, 1);
    for (int i = 0; i < ready; i++) {
      int at = events[i].data.u32;
      unsigned char answer[2048];
      ssize_t got = recv(sockets[at], answer, sizeof answer, 0);
      if (got < 0 && !first_error) first_error = errno;
      if (got >= 0) {
        if (got != sizeof QUERY || answer[0] != (at >> 8 & 255) || answer[1] != (at & 255) || !(answer[2] & 0x80)) wrong++;
        else took[answered++] = now() - begun[at];
      }
      close(sockets[at]);
      open--;
    }
  }
  qsort(took, answered, sizeof *took, ascending);
#define AT(share) (answered ? took[(int)((answered - 1) * (share))] : 0)
  printf("{\"sent\":%d,\"answered\":%d,\"wrong\":%d,\"p50\":%.2f,\"p99\":%.2f,\"slowest\":%.1f,\"firstError\":\"%s\"}\n",
         started, answered, wrong, AT(0.5), AT(0.99), AT(1), first_error ? strerrorname_np(first_error) : "");
  return 0;
}

static int flood(struct sockaddr_in to, double rate, double seconds, int bytes) {
  static unsigned char data[1400];
  int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), room = 64 << 20;
  long sent = 0, failed = 0;
  double start = now(), elapsed;
  if (bytes < 1 || bytes > (int)sizeof data || rate <= 0 || seconds > 30) return 2;
  /* One socket in place of the many that a workload may have: what waits in a queue counts against it. */
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  while ((elapsed = (now() - start) / 1e3) < seconds) {
    if (sent + failed >= elapsed * rate) {
      usleep(500);
      continue;
    }
    to.sin_port = htons(1024 + (sent + failed) % FLOOD_PORTS);
    /* An ICMP error of an earlier datagram shows here. */
    if (sendto(s, data, bytes, 0, (void *)&to, sizeof to) < 0) failed++;
    else sent++;
  }
  printf("{\"sent\":%ld,\"failed\":%ld}\n", sent, failed);
  return 0;
}

int main(int count, char **arguments) {
  struct rlimit limit;
  if (!getrlimit(RLIMIT_NOFILE, &limit)) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (count == 3 && !strcmp(arguments[1], "serve")) return serve(atoi(arguments[2]));
  if (count == 6 && !strcmp(arguments[1], "ask"))
    return ask(parse(arguments[2], atoi(arguments[3])), atof(arguments[4]), atoi(arguments[5]));
  if (count == 6 && !strcmp(arguments[1], "flood"))
    return flood(parse(arguments[2], 0), atof(arguments[3]), atof(arguments[4]), atoi(arguments[5]));
  return 2;
}
