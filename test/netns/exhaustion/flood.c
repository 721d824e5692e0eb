/*
 * SYNs that no kernel's socket sends, at a steady rate and for a bounded time, from the namespace of an attacker with
 * every power over it.
 *
 *   flood capture PORT                                         prints the payload of the next SYN to PORT as hex
 *   flood send KIND SOURCE COUNT DESTINATION PORT RATE SECONDS [FRAME]
 *
 * `send` takes source addresses at random from the COUNT behind SOURCE; ports, sequence numbers and all random bytes
 * come from a generator with a fixed seed. It prints {sent, failed, seconds}. FRAME is a captured SYN frame as hex. KIND:
 *   plain     no frame
 *   garbage   no frame, but data: noise, noise behind the magic, frames whose lengths do not add up
 *   unknown   the frame with another key's id in its WIT's header, each another
 *   forged    the frame with its WIT's payload and signature replaced by noise
 *   own       the frame with a nonce of its own
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXIMUM_RATE 50000
#define MAXIMUM_SECONDS 30
#define BATCH 64
#define FRAME_BYTES 1180
#define HEADER_BYTES 44 /* IPv4, TCP, maximum segment size */
#define NONCE_AT 8
#define WIT_AT 24

static uint64_t state = 0x9e3779b97f4a7c15;

/* xorshift64* (Marsaglia, Vigna): quick and good enough for noise. */
static uint32_t noise(void) {
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return (state * 0x2545f4914f6cdd1d) >> 32;
}

static void fill(unsigned char *at, int bytes) {
  for (int i = 0; i < bytes; i++) at[i] = noise();
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static unsigned add(unsigned sum, const unsigned char *data, int bytes) {
  for (int i = 0; i < bytes; i++) sum += i & 1 ? data[i] : data[i] << 8;
  return sum;
}

static void put16(unsigned char *at, unsigned value) { at[0] = value >> 8, at[1] = value; }
static unsigned get16(const unsigned char *at) { return at[0] << 8 | at[1]; }

/* RFC 9293 section 3.1. The kernel fills in IPv4's own checksum. */
static void check(unsigned char *packet, int bytes) {
  unsigned char *tcp = packet + 20;
  unsigned sum = add(add(6 + bytes - 20, packet + 12, 8), tcp, bytes - 20);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  put16(tcp + 16, ~sum & 0xffff);
}

/* The parts of a WIT section: header, payload, signature, each behind its length. */
static unsigned char *part(unsigned char *frame, int index, int *bytes) {
  unsigned char *at = frame + WIT_AT;
  while (index--) at += 2 + get16(at);
  *bytes = get16(at);
  return at + 2;
}

static int write_data(unsigned char *data, const char *kind, const unsigned char *frame, int frame_bytes) {
  int bytes, length;
  unsigned char *at;
  if (!strcmp(kind, "plain")) return 0;
  if (!strcmp(kind, "garbage")) {
    length = 24 + noise() % 700;
    fill(data, length);
    if (noise() % 3 == 0) return length;
    memcpy(data, "SYNG", 4);
    if (noise() % 2 == 0) return length;
    data[4] = 1, data[5] = 1;
    put16(data + 6, length);
    return length;
  }
  memcpy(data, frame, frame_bytes);
  fill(data + NONCE_AT, 16);
  if (!strcmp(kind, "own")) return frame_bytes;
  if (!strcmp(kind, "unknown")) {
    static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    at = part(data, 0, &bytes);
    at = memmem(at, bytes, "\"kid\":\"", 7);
    if (!at) exit(2);
    for (at += 7; *at != '"'; at++) *at = LETTERS[noise() % 64];
    return frame_bytes;
  }
  for (int i = 1; i <= 2; i++) at = part(data, i, &bytes), fill(at, bytes);
  return frame_bytes;
}

static int build(unsigned char *packet, const char *kind, uint32_t source, uint32_t destination, int port,
                 const unsigned char *frame, int frame_bytes) {
  uint32_t from = htonl(source), to = htonl(destination);
  unsigned char *tcp = packet + 20;
  int bytes = HEADER_BYTES + write_data(packet + HEADER_BYTES, kind, frame, frame_bytes);
  memset(packet, 0, HEADER_BYTES);
  packet[0] = 0x45, packet[6] = 0x40, packet[8] = 64, packet[9] = IPPROTO_TCP;
  put16(packet + 2, bytes);
  memcpy(packet + 12, &from, 4);
  memcpy(packet + 16, &to, 4);
  put16(tcp, 1024 + noise() % 64000);
  put16(tcp + 2, port);
  fill(tcp + 4, 4);
  tcp[12] = 0x60, tcp[13] = 0x02; /* six words, SYN */
  put16(tcp + 14, 64240);
  tcp[20] = 2, tcp[21] = 4;
  put16(tcp + 22, 1460);
  check(packet, bytes);
  return bytes;
}

static int send_many(char **arguments, const char *hex) {
  static unsigned char packets[BATCH][HEADER_BYTES + FRAME_BYTES], frame[FRAME_BYTES];
  const char *kind = arguments[0];
  uint32_t source = ntohl(inet_addr(arguments[1])), destination = ntohl(inet_addr(arguments[3]));
  int count = atoi(arguments[2]), port = atoi(arguments[4]), rate = atoi(arguments[5]), seconds = atoi(arguments[6]);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(destination)};
  int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), frame_bytes = strlen(hex) / 2, room = 4 << 20;
  long sent = 0, failed = 0;
  double start = now(), elapsed = 0;
  if (s < 0) return perror("socket"), 1;
  if (rate < 1 || rate > MAXIMUM_RATE || seconds < 1 || seconds > MAXIMUM_SECONDS || frame_bytes > FRAME_BYTES) return 2;
  for (int i = 0; i < frame_bytes; i++) sscanf(hex + 2 * i, "%2hhx", frame + i);
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  while ((elapsed = now() - start) < seconds) {
    long due = (long)(elapsed * rate) - sent - failed;
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    int wanted = due > BATCH ? BATCH : due, done;
    if (wanted < 1) {
      usleep(500);
      continue;
    }
    for (int i = 0; i < wanted; i++) {
      int bytes = build(packets[i], kind, source + noise() % count, destination, port, frame, frame_bytes);
      parts[i] = (struct iovec){packets[i], bytes};
      messages[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = parts + i, .msg_iovlen = 1};
    }
    done = sendmmsg(s, messages, wanted, 0);
    if (done < 0) failed += wanted;
    else sent += done, failed += wanted - done;
  }
  printf("{\"sent\":%ld,\"failed\":%ld,\"seconds\":%.1f}\n", sent, failed, elapsed);
  return 0;
}

static int capture(int port) {
  int s = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
  double start = now();
  struct timeval patience = {.tv_sec = 1};
  if (s < 0) return perror("socket"), 1;
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  printf("listening\n");
  fflush(stdout);
  while (now() - start < MAXIMUM_SECONDS) {
    unsigned char packet[4096], *tcp;
    int bytes = recv(s, packet, sizeof packet, 0), data;
    if (bytes < 40) continue;
    tcp = packet + (packet[0] & 15) * 4;
    data = tcp - packet + (tcp[12] >> 4) * 4;
    if (get16(tcp + 2) != (unsigned)port || !(tcp[13] & 2) || data >= bytes) continue;
    for (int i = data; i < bytes; i++) printf("%02x", packet[i]);
    printf("\n");
    return 0;
  }
  return 1;
}

int main(int count, char **arguments) {
  if (count == 3 && !strcmp(arguments[1], "capture")) return capture(atoi(arguments[2]));
  if ((count == 9 || count == 10) && !strcmp(arguments[1], "send")) return send_many(arguments + 2, count == 10 ? arguments[9] : "");
  return 2;
}
