/*
 * Many connections at once, and connections of two Pods in turn; it knows nothing of Synguard.
 *
 *   flows serve PORT                      accepts and keeps connections, echoes each byte
 *   flows hold ADDRESS PORT               keeps connections to a `serve`, as many as it is told
 *   flows visit ADDRESS PORT SOURCE COUNT RATE
 *                                         one connection from each of COUNT addresses from SOURCE on, at most RATE a
 *                                         second: connect, send a byte, wait for its echo, close by reset
 *   flows turns ADDRESS PORT COUNT NETNS...
 *                                         COUNT connections, one at a time, each from the next network namespace
 *
 * `serve` and `hold` obey lines of standard input and end with it: "open N" (hold) opens connections until N are open,
 * "state" changes nothing; each is answered by one JSON object: how many are open, how many the other end or the
 * kernel has ended since the last line "open", and when the last of them ended, in microseconds of CLOCK_MONOTONIC.
 * Before the first line `serve` says {"open":0,...}. `visit` and `turns` print one JSON object; times are in
 * microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXIMUM_FDS 65536
#define IN_FLIGHT 32
#define DEADLINE_MICROSECONDS 120e6

enum { UNUSED, CONNECTING, ECHOING, OPEN };

static unsigned char state[MAXIMUM_FDS];
static double begun[MAXIMUM_FDS];
static int epoll_fd, open_count, ended, failed, first_error;
static double last_ended;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static struct sockaddr_in parse(const char *address, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, address, &a.sin_addr) == 1) return a;
  fprintf(stderr, "flows: %s is no IPv4 address\n", address);
  exit(2);
}

static void watch(int fd, int events, int operation) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(epoll_fd, operation, fd, &event)) die("epoll_ctl");
}

/* Closes by reset: nothing of the connection stays behind in the kernel. */
static void discard(int fd) {
  struct linger reset = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  close(fd);
  state[fd] = UNUSED;
}

static void note_failure(int error) {
  if (!first_error) first_error = error;
  failed++;
}

/* Returns the descriptor, or -1. */
static int begin(const struct sockaddr_in *to, const struct sockaddr_in *from) {
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0 || fd >= MAXIMUM_FDS) die("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (from) {
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (void *)from, sizeof *from)) die("bind");
  }
  begun[fd] = now();
  if (connect(fd, (void *)to, sizeof *to) && errno != EINPROGRESS) {
    note_failure(errno);
    close(fd);
    return -1;
  }
  state[fd] = CONNECTING;
  watch(fd, EPOLLOUT, EPOLL_CTL_ADD);
  return fd;
}

/* Takes a connection one step on: 1 where its byte came back, -1 where it failed, else 0. */
static int step(int fd) {
  char byte;
  int error = 0;
  socklen_t size = sizeof error;
  if (state[fd] == CONNECTING) {
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (!error && write(fd, "x", 1) == 1) {
      state[fd] = ECHOING;
      watch(fd, EPOLLIN, EPOLL_CTL_MOD);
      return 0;
    }
  } else if (read(fd, &byte, 1) == 1) {
    return 1;
  }
  note_failure(error ? error : errno);
  discard(fd);
  return -1;
}

static void tell(void) {
  printf("{\"open\":%d,\"ended\":%d,\"failed\":%d,\"lastEnded\":%.1f,\"firstError\":\"%s\"}\n", open_count, ended, failed,
         last_ended, first_error ? strerror(first_error) : "");
  fflush(stdout);
}

/* A kept connection is readable: it ended, or (at the server) a byte came that is sent back. */
static void serve_open(int fd, int echo) {
  char byte;
  ssize_t got = read(fd, &byte, 1);
  if (got == 1 && echo && write(fd, &byte, 1) == 1) return;
  if (got < 0 && errno == EAGAIN) return;
  ended++;
  open_count--;
  last_ended = now();
  discard(fd);
}

static void open_until(const struct sockaddr_in *to, int wanted) {
  struct epoll_event events[256];
  int flying = 0;
  double deadline = now() + DEADLINE_MICROSECONDS;
  ended = failed = first_error = 0;
  /* What is under way is seen to its end: nobody looks at it afterwards. */
  while ((flying > 0 || (open_count < wanted && failed < 100)) && now() < deadline) {
    while (flying < IN_FLIGHT && open_count + flying < wanted && failed < 100)
      if (begin(to, 0) >= 0) flying++;
    int n = epoll_wait(epoll_fd, events, 256, 1000);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) continue;
      if (state[fd] == OPEN) {
        serve_open(fd, 0);
        continue;
      }
      int done = step(fd);
      if (done) flying--;
      if (done == 1) {
        state[fd] = OPEN;
        open_count++;
      }
    }
  }
}

/* One line of standard input; 0 at its end. */
static int obey(const struct sockaddr_in *to) {
  char line[64];
  if (!fgets(line, sizeof line, stdin)) return 0;
  if (!strncmp(line, "open ", 5)) {
    if (to) open_until(to, atoi(line + 5));
    else ended = 0;
  }
  tell();
  return 1;
}

static int keep(int listener, const struct sockaddr_in *to) {
  struct epoll_event events[256];
  setvbuf(stdin, 0, _IONBF, 0);
  watch(0, EPOLLIN, EPOLL_CTL_ADD);
  for (;;) {
    int n = epoll_wait(epoll_fd, events, 256, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd, accepted;
      if (fd == 0) {
        if (!obey(to)) return 0;
      } else if (fd == listener) {
        while ((accepted = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
          state[accepted] = OPEN;
          open_count++;
          watch(accepted, EPOLLIN, EPOLL_CTL_ADD);
        }
      } else if (state[fd] == OPEN) {
        serve_open(fd, listener >= 0);
      }
    }
  }
}

static int serve(int port) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&any, sizeof any) || listen(listener, 4096)) die("listen");
  watch(listener, EPOLLIN, EPOLL_CTL_ADD);
  tell();
  return keep(listener, 0);
}

static int visit(const struct sockaddr_in *to, struct sockaddr_in from, int count, double rate) {
  struct epoll_event events[256];
  double start = now();
  int started = 0, echoes = 0;
  while (echoes + failed < count && now() - start < DEADLINE_MICROSECONDS) {
    while (started < count && started < (now() - start) / 1e6 * rate + 1 && started - echoes - failed < IN_FLIGHT) {
      begin(to, &from);
      from.sin_addr.s_addr = htonl(ntohl(from.sin_addr.s_addr) + 1);
      started++;
    }
    int n = epoll_wait(epoll_fd, events, 256, 2);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (step(fd) != 1) continue;
      echoes++;
      discard(fd);
    }
  }
  printf("{\"succeeded\":%d,\"failed\":%d,\"firstError\":\"%s\"}\n", echoes, failed, first_error ? strerror(first_error) : "");
  return 0;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int turns(const struct sockaddr_in *to, int count, int places, char **names) {
  int namespaces[16], echoes = 0;
  double *took = calloc(count, sizeof *took);
  struct epoll_event event;
  for (int i = 0; i < places; i++)
    if ((namespaces[i] = open(names[i], O_RDONLY | O_CLOEXEC)) < 0) die(names[i]);
  for (int i = 0; i < count; i++) {
    /* A socket stays in the namespace where it was made. */
    if (setns(namespaces[i % places], CLONE_NEWNET)) die("setns");
    int fd = begin(to, 0), done = 0;
    while (fd >= 0 && !done && epoll_wait(epoll_fd, &event, 1, 5000) == 1) done = step(fd);
    if (done == 1) took[echoes++] = now() - begun[fd];
    if (fd >= 0 && done != -1) discard(fd);
  }
  qsort(took, echoes, sizeof *took, ascending);
  printf("{\"succeeded\":%d,\"echoP50\":%.1f,\"echoP99\":%.1f,\"echoMaximum\":%.1f,\"firstError\":\"%s\"}\n", echoes,
         echoes ? took[(echoes - 1) / 2] : 0, echoes ? took[(int)((echoes - 1) * 0.99)] : 0, echoes ? took[echoes - 1] : 0,
         first_error ? strerror(first_error) : "");
  return 0;
}

int main(int count, char **arguments) {
  struct rlimit limit;
  struct sockaddr_in to, from;
  if (!getrlimit(RLIMIT_NOFILE, &limit)) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (count == 3 && !strcmp(arguments[1], "serve")) return serve(atoi(arguments[2]));
  if (count >= 4) to = parse(arguments[2], atoi(arguments[3]));
  if (count == 4 && !strcmp(arguments[1], "hold")) return keep(-1, &to);
  if (count == 7 && !strcmp(arguments[1], "visit")) {
    from = parse(arguments[4], 0);
    return visit(&to, from, atoi(arguments[5]), atof(arguments[6]));
  }
  if (count >= 6 && count < 22 && !strcmp(arguments[1], "turns"))
    return turns(&to, atoi(arguments[4]), count - 5, arguments + 5);
  fprintf(stderr, "usage: flows serve PORT | hold ADDRESS PORT | visit ADDRESS PORT SOURCE COUNT RATE | "
                  "turns ADDRESS PORT COUNT NETNS...\n");
  return 2;
}
