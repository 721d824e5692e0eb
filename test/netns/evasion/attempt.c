/*
 * A workload's attempts to reach a server, and the server. Each attempt sends one word; the server prints the words that
 * reached it, so that a test sees what got through.
 *
 *   attempt serve
 *   attempt send ADDRESS PORT WORD [NAME VALUE]...
 *
 * `send` prints {"failed": the call that failed, "errno": its name}, both empty when all calls went well. Names:
 *   protocol tcp|udp|udplite|mptcp|raw|packet|sctp|dccp|icmp      default tcp
 *   uid N | mark N | device NAME | bytes N | source ADDRESS (IP_FREEBIND) | sourceport N
 *   userns 1         in a user namespace of its own, where it has every capability
 *   fastopen 1|2     data on the SYN by MSG_FASTOPEN, or by TCP_FASTOPEN_CONNECT
 *   via ADDRESS      a source route over this hop: an IPv4 option, or a segment routing header of IPv6
 *   released 1       with `via`, datagrams: first one to the hop itself, so that the flow to it is released
 *   header hop|destination   an IPv6 extension header with padding
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif
#define ANY_PROTOCOL 253 /* RFC 3692: for experiments */
#define PORT 9000
#define FAST_OPEN_PORT 9001
#define MPTCP_PORT 9002
#define WAIT_MILLISECONDS 2500

static void finish(const char *call) {
  printf("{\"failed\":\"%s\",\"errno\":\"%s\"}\n", call, *call ? strerrorname_np(errno) : "");
  exit(0);
}

static socklen_t parse(const char *text, int port, struct sockaddr_storage *out) {
  struct sockaddr_in *v4 = (void *)out;
  struct sockaddr_in6 *v6 = (void *)out;
  memset(out, 0, sizeof *out);
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    return sizeof *v4;
  }
  if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1) exit(2);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  return sizeof *v6;
}

/* ---- the server ---- */

static int open_server(int family, int type, int protocol, int port) {
  int one = 1, zero = 0, s = socket(family, type, protocol);
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (s < 0) return -1;
  if (type != SOCK_RAW) {
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(s, (void *)&any, sizeof any)) perror("bind"), exit(1);
  }
  if (type == SOCK_STREAM && listen(s, 64)) perror("listen"), exit(1);
  return s;
}

static int serve(void) {
  struct pollfd watched[256];
  int count = 0, listeners = 0, fixed, queue = 16;
  struct ip_mreqn group = {.imr_ifindex = if_nametoindex("eth0")};
  int udp = open_server(AF_INET6, SOCK_DGRAM, IPPROTO_UDP, PORT);
  int fast = open_server(AF_INET6, SOCK_STREAM, IPPROTO_TCP, FAST_OPEN_PORT);
  int sockets[] = {open_server(AF_INET6, SOCK_STREAM, IPPROTO_TCP, PORT), fast,
                   open_server(AF_INET6, SOCK_STREAM, IPPROTO_MPTCP, MPTCP_PORT), udp,
                   open_server(AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE, PORT), open_server(AF_INET, SOCK_RAW, ANY_PROTOCOL, 0),
                   open_server(AF_INET6, SOCK_RAW, ANY_PROTOCOL, 0)};
  inet_pton(AF_INET, "239.9.9.9", &group.imr_multiaddr);
  setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group);
  setsockopt(fast, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof queue);
  for (unsigned i = 0; i < sizeof sockets / sizeof *sockets; i++) {
    if (sockets[i] < 0) continue;
    watched[count++] = (struct pollfd){.fd = sockets[i], .events = POLLIN};
    if (i < 3) listeners = count;
  }
  fixed = count;
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    if (poll(watched, count, -1) < 0) return 1;
    for (int i = count - 1; i >= 0; i--) {
      char data[70000];
      ssize_t got;
      char *word = data;
      if (!watched[i].revents) continue;
      if (i < listeners && count < 256) {
        int accepted = accept(watched[i].fd, 0, 0);
        if (accepted >= 0) watched[count++] = (struct pollfd){.fd = accepted, .events = POLLIN};
        continue;
      }
      got = recv(watched[i].fd, data, sizeof data - 1, MSG_DONTWAIT);
      if (got <= 0) {
        if (got < 0 && errno == EAGAIN) continue;
        if (i < fixed) continue;
        close(watched[i].fd);
        watched[i] = watched[--count];
        continue;
      }
      data[got] = 0;
      /* A raw IPv4 socket hands over the header too. */
      if ((data[0] & 0xf0) == 0x40 && !data[1]) word = data + (data[0] & 15) * 4;
      if (strncmp(word, "word-", 5)) continue;
      word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-")] = 0;
      printf("%s\n", word);
      fflush(stdout);
    }
  }
}

/* ---- an attempt ---- */

struct attempt {
  const char *protocol, *device, *via, *header, *source;
  int uid, bytes, source_port, userns, fastopen, released;
  unsigned mark;
};

static void set_route(int s, const struct attempt *a, const struct sockaddr_storage *to) {
  if (to->ss_family == AF_INET) {
    unsigned char option[12] = {1, 131, 11, 4}; /* no operation; loose source route: length, pointer, hop, last hop */
    inet_pton(AF_INET, a->via, option + 4);
    memcpy(option + 8, &((struct sockaddr_in *)to)->sin_addr, 4);
    /* Linux puts the destination behind the hops itself. */
    option[2] = 7;
    if (setsockopt(s, IPPROTO_IP, IP_OPTIONS, option, 8)) finish("IP_OPTIONS");
  } else {
    unsigned char header[40] = {0, 4, 4, 1, 1}; /* RFC 8754: two segments, one left */
    memcpy(header + 8, &((struct sockaddr_in6 *)to)->sin6_addr, 16);
    inet_pton(AF_INET6, a->via, header + 24);
    if (setsockopt(s, IPPROTO_IPV6, IPV6_RTHDR, header, sizeof header)) finish("IPV6_RTHDR");
  }
}

static void prepare(int s, const struct attempt *a, const struct sockaddr_storage *to) {
  unsigned char padding[8] = {0, 0, 1, 4}; /* PadN of six bytes: RFC 8200 section 4.2 */
  int one = 1;
  setsockopt(s, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
  if (a->mark && setsockopt(s, SOL_SOCKET, SO_MARK, &a->mark, sizeof a->mark)) finish("SO_MARK");
  if (a->device && setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, a->device, strlen(a->device))) finish("SO_BINDTODEVICE");
  if (a->header) {
    int name = strcmp(a->header, "hop") ? IPV6_DSTOPTS : IPV6_HOPOPTS;
    if (setsockopt(s, IPPROTO_IPV6, name, padding, sizeof padding)) finish(name == IPV6_DSTOPTS ? "IPV6_DSTOPTS" : "IPV6_HOPOPTS");
  }
  if (a->released) {
    struct sockaddr_storage hop;
    socklen_t length = parse(a->via, ntohs(((struct sockaddr_in *)to)->sin_port), &hop);
    if (sendto(s, "first", 5, 0, (void *)&hop, length) < 0) finish("sendto");
    usleep(300000);
    recv(s, padding, 1, MSG_DONTWAIT); /* an ICMP error of the hop, which has no such port */
  }
  if (a->via) set_route(s, a, to);
  if (a->source || a->source_port) {
    struct sockaddr_storage from;
    socklen_t length = parse(a->source ? a->source : to->ss_family == AF_INET ? "0.0.0.0" : "::", a->source_port, &from);
    if (a->source && setsockopt(s, IPPROTO_IP, IP_FREEBIND, &one, sizeof one)) finish("IP_FREEBIND");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(s, (void *)&from, length)) finish("bind");
  }
}

static void send_stream(int s, const struct attempt *a, const char *data, int bytes, void *to, socklen_t length) {
  struct pollfd waiting = {.fd = s, .events = POLLOUT};
  int error = 0, one = 1;
  socklen_t size = sizeof error;
  fcntl(s, F_SETFL, O_NONBLOCK);
  if (a->fastopen == 2 && setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one)) finish("TCP_FASTOPEN_CONNECT");
  if (a->fastopen == 1) {
    if (sendto(s, data, bytes, MSG_FASTOPEN, to, length) < 0 && errno != EINPROGRESS) finish("sendto");
  } else {
    if (connect(s, to, length) && errno != EINPROGRESS) finish("connect");
    if (a->fastopen == 2 && send(s, data, bytes, 0) < 0 && errno != EINPROGRESS) finish("send");
  }
  if (!poll(&waiting, 1, WAIT_MILLISECONDS)) errno = ETIMEDOUT, finish("connect");
  getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) errno = error, finish("connect");
  if (!a->fastopen && send(s, data, bytes, MSG_NOSIGNAL) < 0) finish("send");
  /* Room for a refusal that comes only now, and for data that must be sent again. */
  waiting.events = POLLRDHUP;
  if (poll(&waiting, 1, 500) > 0) {
    getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) errno = error, finish("poll");
  }
}

static void send_datagrams(int s, const char *data, int bytes, void *to, socklen_t length) {
  for (int i = 0; i < 3; i++) {
    if (sendto(s, data, bytes, 0, to, length) < 0) finish("sendto");
    usleep(200000);
  }
}

/** A frame past all of netfilter, as only AF_PACKET can send it: UDP in IPv4, to the broadcast address of the link. */
static void send_frame(const char *word, const struct sockaddr_in *to) {
  unsigned char frame[64] = {0x45};
  struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_halen = 6};
  int s = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP)), bytes = 28 + strlen(word);
  unsigned sum = 0;
  if (s < 0) finish("socket");
  link.sll_ifindex = if_nametoindex("eth0");
  memset(link.sll_addr, 0xff, 6);
  frame[3] = bytes, frame[8] = 64, frame[9] = IPPROTO_UDP;
  memcpy(frame + 12, (unsigned char[]){10, 244, 99, 99}, 4);
  memcpy(frame + 16, &to->sin_addr, 4);
  for (int i = 0; i < 20; i += 2) sum += frame[i] << 8 | frame[i + 1];
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~(sum + (sum >> 16));
  frame[10] = sum >> 8, frame[11] = sum;
  memcpy(frame + 22, &to->sin_port, 2);
  frame[25] = bytes - 20;
  memcpy(frame + 28, word, strlen(word));
  if (sendto(s, frame, bytes, 0, (void *)&link, sizeof link) < 0) finish("sendto");
}

static int attempt(const char *address, int port, const char *word, const struct attempt *a) {
  static const struct { const char *name; int type, protocol; } PROTOCOLS[] = {
      {"tcp", SOCK_STREAM, IPPROTO_TCP}, {"udp", SOCK_DGRAM, IPPROTO_UDP}, {"udplite", SOCK_DGRAM, IPPROTO_UDPLITE},
      {"mptcp", SOCK_STREAM, IPPROTO_MPTCP}, {"raw", SOCK_RAW, ANY_PROTOCOL}, {"sctp", SOCK_STREAM, IPPROTO_SCTP},
      {"dccp", 6, IPPROTO_DCCP}, {"l2tp", SOCK_DGRAM, 115}};
  struct sockaddr_storage to;
  socklen_t length = parse(address, port, &to);
  char *data = calloc(1, a->bytes + 64);
  int bytes = strlen(word), s = -1;
  if (a->uid && (setgid(a->uid) || setuid(a->uid))) finish("setuid");
  if (a->userns && unshare(CLONE_NEWUSER)) finish("unshare");
  if (!strcmp(a->protocol, "packet")) {
    send_frame(word, (void *)&to);
    finish("");
  }
  memset(data, ' ', a->bytes);
  memcpy(data, word, bytes);
  if (a->bytes > bytes) bytes = a->bytes;
  for (unsigned i = 0; i < sizeof PROTOCOLS / sizeof *PROTOCOLS; i++) {
    if (strcmp(a->protocol, PROTOCOLS[i].name)) continue;
    s = socket(to.ss_family, PROTOCOLS[i].type, PROTOCOLS[i].protocol);
    if (s < 0) finish("socket");
    prepare(s, a, &to);
    if (PROTOCOLS[i].type == SOCK_RAW && to.ss_family == AF_INET6) ((struct sockaddr_in6 *)&to)->sin6_port = 0;
    if (PROTOCOLS[i].type == SOCK_STREAM || PROTOCOLS[i].type == 6) send_stream(s, a, data, bytes, &to, length);
    else send_datagrams(s, data, bytes, &to, length);
    finish("");
  }
  return 2;
}

int main(int count, char **arguments) {
  struct attempt a = {.protocol = "tcp"};
  if (count == 2 && !strcmp(arguments[1], "serve")) return serve();
  if (count < 5 || strcmp(arguments[1], "send")) return 2;
  for (int i = 5; i + 1 < count; i += 2) {
    const char *name = arguments[i], *value = arguments[i + 1];
    if (!strcmp(name, "protocol")) a.protocol = value;
    else if (!strcmp(name, "device")) a.device = value;
    else if (!strcmp(name, "via")) a.via = value;
    else if (!strcmp(name, "header")) a.header = value;
    else if (!strcmp(name, "source")) a.source = value;
    else if (!strcmp(name, "uid")) a.uid = atoi(value);
    else if (!strcmp(name, "bytes")) a.bytes = atoi(value);
    else if (!strcmp(name, "sourceport")) a.source_port = atoi(value);
    else if (!strcmp(name, "userns")) a.userns = 1;
    else if (!strcmp(name, "fastopen")) a.fastopen = atoi(value);
    else if (!strcmp(name, "released")) a.released = atoi(value);
    else if (!strcmp(name, "mark")) a.mark = strtoul(value, 0, 0);
    else return 2;
  }
  return attempt(arguments[2], atoi(arguments[3]), arguments[4], &a);
}
