/*
 * Fills the table of connections of the network namespace that it runs in, and empties it again.
 *
 *   fill COUNT
 *
 * Adds COUNT UDP entries that conntrack does not give up for others (assured, 600 s) and prints how many the table has
 * then. Until its standard input ends it adds more, where others expire; then it removes all and prints what is left.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64
#define MESSAGE_BYTES 256
#define PAUSE_MILLISECONDS 10
#define ASSURED 0x0e /* IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED */

static char buffer[BATCH * MESSAGE_BYTES];
static char *end;

static struct nlattr *put(int type, const void *value, int bytes) {
  struct nlattr *at = (void *)end;
  at->nla_type = type;
  at->nla_len = NLA_HDRLEN + bytes;
  memcpy(end + NLA_HDRLEN, value, bytes);
  end += NLA_ALIGN(at->nla_len);
  return at;
}

static struct nlattr *begin(int type) { return put(type | NLA_F_NESTED, "", 0); }
static void finish(struct nlattr *nest) { nest->nla_len = end - (char *)nest; }

static void tuple(int type, in_addr_t from, in_addr_t to, int from_port, int to_port) {
  unsigned char udp = IPPROTO_UDP;
  unsigned short ports[] = {htons(from_port), htons(to_port)};
  struct nlattr *whole = begin(type), *part = begin(CTA_TUPLE_IP);
  put(CTA_IP_V4_SRC, &from, 4);
  put(CTA_IP_V4_DST, &to, 4);
  finish(part);
  part = begin(CTA_TUPLE_PROTO);
  put(CTA_PROTO_NUM, &udp, 1);
  put(CTA_PROTO_SRC_PORT, ports, 2);
  put(CTA_PROTO_DST_PORT, ports + 1, 2);
  finish(part);
  finish(whole);
}

static struct nlmsghdr *message(int type, int flags) {
  struct nlmsghdr *header = (void *)end;
  struct nfgenmsg family = {.nfgen_family = AF_INET, .version = NFNETLINK_V0};
  memset(header, 0, sizeof *header);
  header->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | type;
  header->nlmsg_flags = NLM_F_REQUEST | flags;
  end += NLMSG_HDRLEN;
  memcpy(end, &family, sizeof family);
  end += NLMSG_ALIGN(sizeof family);
  return header;
}

static void add(unsigned number) {
  struct nlmsghdr *header = message(IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL);
  in_addr_t from = htonl(0xc6120000 | (number & 0xffff)), to = inet_addr("198.19.0.1"); /* RFC 2544 */
  unsigned status = htonl(ASSURED), timeout = htonl(600);
  int port = 1024 + (number >> 16);
  tuple(CTA_TUPLE_ORIG, from, to, port, 9);
  tuple(CTA_TUPLE_REPLY, to, from, 9, port);
  put(CTA_STATUS, &status, 4);
  put(CTA_TIMEOUT, &timeout, 4);
  header->nlmsg_len = end - (char *)header;
}

static long entries(void) {
  FILE *file = fopen("/proc/sys/net/netfilter/nf_conntrack_count", "r");
  long count = -1;
  if (!file || fscanf(file, "%ld", &count) != 1) exit(1);
  fclose(file);
  return count;
}

int main(int arguments, char **argument) {
  int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  long count = arguments == 2 ? atol(argument[1]) : 0;
  char answers[8192];
  struct pollfd input = {.fd = 0, .events = POLLIN};
  if (s < 0) return perror("socket"), 1;
  for (long added = 0; added < count || !poll(&input, 1, PAUSE_MILLISECONDS);) {
    long before = added;
    end = buffer;
    for (int i = 0; i < BATCH; i++) add(added++);
    if (send(s, buffer, end - buffer, 0) < 0) return perror("send"), 1;
    while (recv(s, answers, sizeof answers, MSG_DONTWAIT) > 0); /* refused where the table is full */
    if (before < count && added >= count) printf("%ld\n", entries()), fflush(stdout);
  }
  end = buffer;
  struct nlmsghdr *all = message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
  all->nlmsg_len = end - buffer;
  if (send(s, buffer, end - buffer, 0) < 0 || recv(s, answers, sizeof answers, 0) < 0) return perror("delete"), 1;
  printf("%ld\n", entries());
  return 0;
}
