/*
 * Packets that no kernel's socket would send, from the namespace of an attacker with every power over it.
 *
 *   crafted udp|tcp SOURCE DESTINATION PORT WORD SHAPE
 *
 * `udp` sends a datagram with the word; `tcp` a SYN, and prints what answers it: syn-ack, reset or nothing. SHAPE:
 *   whole       nothing special: the control of the control
 *   fragments   a first fragment as small as kernels take: 8 bytes, of TCP over IPv6 24 (RFC 7112)
 *   last-first  the same, in reversed order
 *   kept-apart  fragments over IPv4 that the sender's own connection tracking does not put together (IP_NODEFRAG), the
 *               first with all of TCP's header
 *   h d r f a   letters, IPv6 alone: hop-by-hop, destination options, routing header (used up), atomic fragment, AH
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned char source[16], destination[16];
static int address_bytes, kept_apart;

static unsigned add(unsigned sum, const unsigned char *data, int bytes) {
  for (int i = 0; i < bytes; i++) sum += i & 1 ? data[i] : data[i] << 8;
  return sum;
}

static void put16(unsigned char *at, unsigned value) { at[0] = value >> 8, at[1] = value; }

/** Writes the checksum of a transport segment with its pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1). */
static void check(unsigned char *segment, int bytes, int protocol, int at) {
  unsigned sum = add(add(add(protocol + bytes, source, address_bytes), destination, address_bytes), segment, bytes);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  put16(segment + at, ~sum & 0xffff);
}

static int build(unsigned char *segment, int protocol, int from, int port, const char *word) {
  int bytes = kept_apart ? 40 : 32;
  put16(segment, from);
  put16(segment + 2, port);
  if (protocol == IPPROTO_UDP) {
    bytes = 8 + strlen(word);
    put16(segment + 4, bytes);
    memcpy(segment + 8, word, bytes - 8);
    check(segment, bytes, protocol, 6);
  } else {
    put16(segment + 4, 0x1234 + from);
    segment[12] = 0x80, segment[13] = 0x02; /* eight words, SYN */
    memset(segment + 20, 1, 12);           /* no operation */
    put16(segment + 14, 64240);
    check(segment, bytes, protocol, 16);
  }
  return bytes;
}

static void transmit(const unsigned char *packet, int bytes) {
  int family = address_bytes == 4 ? AF_INET : AF_INET6, s = socket(family, SOCK_RAW, IPPROTO_RAW);
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  memcpy(&v4.sin_addr, destination, 4);
  memcpy(&v6.sin6_addr, destination, 16);
  if (s < 0) perror("socket"), exit(1);
  if (kept_apart && setsockopt(s, IPPROTO_IP, IP_NODEFRAG, &kept_apart, sizeof kept_apart)) perror("IP_NODEFRAG"), exit(1);
  if (sendto(s, packet, bytes, 0, family == AF_INET ? (void *)&v4 : (void *)&v6, family == AF_INET ? sizeof v4 : sizeof v6) < 0 &&
      !(kept_apart && errno == EPERM)) /* dropped on its way out */
    perror("sendto"), exit(1);
  close(s);
}

/** One packet with the bytes [begin, end) of the segment; a fragment unless they are all. */
static void send_part(const unsigned char *segment, int total, int begin, int end, int protocol, const char *headers) {
  static const struct { char letter; unsigned char number; } NUMBERS[] = {{'h', 0}, {'d', 60}, {'r', 43}, {'f', 44}, {'a', 51}};
  unsigned char packet[2048] = {0}, *next = packet + 6;
  int length = address_bytes == 4 ? 20 : 40, more = end < total;
  if (address_bytes == 4) {
    packet[0] = 0x45, packet[8] = 64, packet[9] = protocol;
    put16(packet + 4, 0x4321 + segment[1]);
    put16(packet + 6, begin / 8 | more << 13);
    memcpy(packet + 12, source, 4);
    memcpy(packet + 16, destination, 4);
    put16(packet + 2, 20 + end - begin);
  } else {
    packet[0] = 0x60, packet[7] = 64;
    memcpy(packet + 8, source, 16);
    memcpy(packet + 24, destination, 16);
    for (; *headers; headers++) {
      unsigned char *header = packet + length;
      for (unsigned i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        if (NUMBERS[i].letter == *headers) *next = NUMBERS[i].number;
      if (*headers == 'h' || *headers == 'd') header[2] = 1, header[3] = 4; /* PadN */
      if (*headers == 'a') header[1] = 2;
      if (*headers == 'f') put16(header + 2, begin | more), put16(header + 6, 0x4321 + segment[1]);
      next = header;
      length += *headers == 'a' ? 16 : 8;
    }
    *next = protocol;
    put16(packet + 4, length - 40 + end - begin);
  }
  memcpy(packet + length, segment + begin, end - begin);
  transmit(packet, length + end - begin);
}

static const char *await_answer(int s, int from, int port) {
  struct pollfd waiting = {.fd = s, .events = POLLIN};
  for (int left = 1500; left > 0; left -= 50) {
    unsigned char data[2048], *tcp = data;
    if (poll(&waiting, 1, 50) <= 0) continue;
    if (recv(s, data, sizeof data, 0) < 20) continue;
    if (address_bytes == 4) tcp += (data[0] & 15) * 4;
    if ((tcp[0] << 8 | tcp[1]) != port || (tcp[2] << 8 | tcp[3]) != from) continue;
    return tcp[13] & 4 ? "reset" : "syn-ack";
  }
  return "nothing";
}

int main(int count, char **arguments) {
  unsigned char segment[1024] = {0};
  int protocol, port, from, total, first, listening;
  if (count != 7) return 2;
  protocol = strcmp(arguments[1], "udp") ? IPPROTO_TCP : IPPROTO_UDP;
  address_bytes = strchr(arguments[2], ':') ? 16 : 4;
  if (inet_pton(address_bytes == 4 ? AF_INET : AF_INET6, arguments[2], source) != 1) return 2;
  if (inet_pton(address_bytes == 4 ? AF_INET : AF_INET6, arguments[3], destination) != 1) return 2;
  port = atoi(arguments[4]);
  from = 20000 + (getpid() ^ time(0)) % 20000;
  kept_apart = !strcmp(arguments[6], "kept-apart");
  total = build(segment, protocol, from, port, arguments[5]);
  listening = socket(address_bytes == 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_TCP);
  first = kept_apart ? 32 : protocol == IPPROTO_TCP && address_bytes == 16 ? 24 : 8;
  if (kept_apart || !strcmp(arguments[6], "fragments")) {
    send_part(segment, total, 0, first, protocol, "f");
    send_part(segment, total, first, total, protocol, "f");
  } else if (!strcmp(arguments[6], "last-first")) {
    send_part(segment, total, first, total, protocol, "f");
    send_part(segment, total, 0, first, protocol, "f");
  } else {
    send_part(segment, total, 0, total, protocol, strcmp(arguments[6], "whole") ? arguments[6] : "");
  }
  printf("%s\n", protocol == IPPROTO_UDP ? "sent" : await_answer(listening, from, port));
  return 0;
}
