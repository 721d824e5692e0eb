/*
 * Honest clients: connections at a steady rate, whatever becomes of those before.
 *
 *   pace ADDRESS PORT PER_SECOND COUNT PATIENCE
 *
 * Each connects, sends a byte, waits for its echo and closes by reset; it fails PATIENCE seconds after its start.
 * Prints one JSON object; times are in milliseconds from connect() to the echo.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXIMUM_COUNT 10000
#define STALL_MILLISECONDS 1000

static struct connection {
  int fd, connected;
  double begun;
} connections[MAXIMUM_COUNT];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **arguments) {
  static double took[MAXIMUM_COUNT];
  int e = epoll_create1(0), wanted, started = 0, done = 0, succeeded = 0, stalls = 0, first_error = 0;
  struct sockaddr_in to = {.sin_family = AF_INET};
  double rate, patience, start = now();
  if (count != 6 || inet_pton(AF_INET, arguments[1], &to.sin_addr) != 1) return 2;
  to.sin_port = htons(atoi(arguments[2]));
  rate = atof(arguments[3]), wanted = atoi(arguments[4]), patience = atof(arguments[5]) * 1e3;
  if (wanted < 1 || wanted > MAXIMUM_COUNT || rate <= 0) return 2;
  while (done < wanted) {
    struct epoll_event events[64];
    int ready = epoll_wait(e, events, 64, 1);
    for (; started < wanted && started < (now() - start) * rate / 1e3 + 1; started++) {
      struct connection *c = connections + started;
      struct linger reset = {1, 0};
      int one = 1;
      struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
      c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      c->begun = now();
      if (c->fd < 0) return perror("socket"), 1;
      setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
      setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) {
        if (!first_error) first_error = errno;
        close(c->fd), c->fd = -1, done++;
        continue;
      }
      epoll_ctl(e, EPOLL_CTL_ADD, c->fd, &event);
    }
    for (int i = 0; i < ready; i++) {
      struct connection *c = events[i].data.ptr;
      struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
      int error = 0;
      socklen_t size = sizeof error;
      char byte;
      if (!c->connected) {
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (!error && write(c->fd, "x", 1) == 1) {
          c->connected = 1;
          epoll_ctl(e, EPOLL_CTL_MOD, c->fd, &event);
          continue;
        }
      } else if (read(c->fd, &byte, 1) == 1) {
        took[succeeded] = now() - c->begun;
        if (took[succeeded++] > STALL_MILLISECONDS) stalls++;
      } else error = errno;
      if (error && !first_error) first_error = error;
      close(c->fd), c->fd = -1, done++;
    }
    for (int i = 0; i < started; i++) {
      if (connections[i].fd < 0 || now() - connections[i].begun < patience) continue;
      if (!first_error) first_error = ETIMEDOUT;
      close(connections[i].fd), connections[i].fd = -1, done++;
    }
  }
  qsort(took, succeeded, sizeof *took, ascending);
#define AT(share) (succeeded ? took[(int)((succeeded - 1) * (share))] : 0)
  printf("{\"opened\":%d,\"succeeded\":%d,\"stalls\":%d,\"p50\":%.2f,\"p99\":%.2f,\"slowest\":%.1f,\"firstError\":\"%s\"}\n",
         wanted, succeeded, stalls, AT(0.5), AT(0.99), AT(1), first_error ? strerrorname_np(first_error) : "");
  return 0;
}
