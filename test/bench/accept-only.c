/*
 * The yardstick: takes the packets that Synguard's rules queue and accepts them, doing nothing else.
 *
 *   accept-only QUEUE RELEASED      RELEASED: the mark, in hexadecimal, that lets a connection skip the queue
 *
 * It runs under Synguard's own rules and, like the sidecar, sets that mark on the SYN-ACK that comes in and on the
 * first packet that comes in without SYN; so each end stops seeing a connection after its handshake.
 * One receive and one send a packet, no allocation, no copy: what NFQUEUE itself costs.
 */
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_PACKETS 4096
#define RECEIVE_BUFFER_BYTES (8 << 20)
#define TCP_SYN 0x02
#define TCP_ACK 0x10

struct verdict {
  struct nlmsghdr message;
  struct nfgenmsg family;
  struct nlattr verdict_attribute;
  struct nfqnl_msg_verdict_hdr verdict;
  struct nlattr mark_attribute;
  uint32_t mark;
};

static unsigned char buffer[1 << 17] __attribute__((aligned(8)));

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void configure(int fd, uint16_t queue, uint16_t type, const void *value, uint16_t bytes) {
  struct {
    struct nlmsghdr message;
    struct nfgenmsg family;
    struct nlattr attribute;
    unsigned char value[16];
  } request = {
      .message = {.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
      .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue)},
      .attribute = {.nla_type = type, .nla_len = NLA_HDRLEN + bytes},
  };
  struct {
    struct nlmsghdr message;
    struct nlmsgerr error;
  } answer;
  memcpy(request.value, value, bytes);
  request.message.nlmsg_len = NLMSG_ALIGN(sizeof request.message + sizeof request.family + NLA_HDRLEN + bytes);
  if (send(fd, &request, request.message.nlmsg_len, 0) < 0) die("send");
  if (recv(fd, &answer, sizeof answer, MSG_TRUNC) < 0) die("recv");
  if (answer.message.nlmsg_type != NLMSG_ERROR || answer.error.error != 0) {
    fprintf(stderr, "accept-only: the kernel refuses queue %d\n", queue);
    exit(1);
  }
}

static int open_queue(uint16_t queue) {
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), one = 1, bytes = RECEIVE_BUFFER_BYTES;
  struct sockaddr_nl own = {.nl_family = AF_NETLINK};
  struct nfqnl_msg_config_cmd bind_command = {.command = NFQNL_CFG_CMD_BIND, .pf = htons(AF_INET)};
  struct nfqnl_msg_config_params whole_packets = {.copy_range = htonl(0xffff), .copy_mode = NFQNL_COPY_PACKET};
  uint32_t length = htonl(QUEUE_PACKETS);
  if (fd < 0 || bind(fd, (void *)&own, sizeof own)) die("netlink");
  setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  configure(fd, queue, NFQA_CFG_CMD, &bind_command, sizeof bind_command);
  configure(fd, queue, NFQA_CFG_PARAMS, &whole_packets, sizeof whole_packets);
  configure(fd, queue, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
  return fd;
}

/* Whether this end of the connection has seen enough: as the sidecar releases. */
static int releases(int hook, const unsigned char *packet) {
  int header = packet[0] >> 4 == 4 ? (packet[0] & 15) * 4 : 40;
  int flags = packet[header + 13];
  return hook == NF_INET_LOCAL_IN && (!(flags & TCP_SYN) || flags & TCP_ACK);
}

static void answer(int fd, const struct nlmsghdr *message, uint32_t released) {
  const struct nfgenmsg *family = NLMSG_DATA(message);
  const unsigned char *end = (const unsigned char *)message + message->nlmsg_len, *payload = 0;
  const struct nfqnl_msg_packet_hdr *header = 0;
  const unsigned char *at = (const unsigned char *)family + NLMSG_ALIGN(sizeof *family);
  while (at + NLA_HDRLEN <= end) {
    const struct nlattr *attribute = (const void *)at;
    if (attribute->nla_len < NLA_HDRLEN) break;
    if ((attribute->nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR) header = (const void *)(at + NLA_HDRLEN);
    if ((attribute->nla_type & NLA_TYPE_MASK) == NFQA_PAYLOAD) payload = at + NLA_HDRLEN;
    at += NLA_ALIGN(attribute->nla_len);
  }
  if (!header) return;
  struct verdict out = {
      .message = {.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT, .nlmsg_flags = NLM_F_REQUEST},
      .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = family->res_id},
      .verdict_attribute = {.nla_type = NFQA_VERDICT_HDR, .nla_len = NLA_HDRLEN + sizeof out.verdict},
      .verdict = {.verdict = htonl(NF_ACCEPT), .id = header->packet_id},
      .mark_attribute = {.nla_type = NFQA_MARK, .nla_len = NLA_HDRLEN + sizeof out.mark},
      .mark = htonl(released),
  };
  int release = payload && releases(header->hook, payload);
  out.message.nlmsg_len = release ? sizeof out : offsetof(struct verdict, mark_attribute);
  if (send(fd, &out, out.message.nlmsg_len, 0) < 0) perror("verdict");
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: accept-only QUEUE RELEASED\n");
    return 2;
  }
  uint32_t released = strtoul(arguments[2], 0, 16);
  int fd = open_queue(atoi(arguments[1]));
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    int bytes = recv(fd, buffer, sizeof buffer, 0);
    struct nlmsghdr *message = (void *)buffer;
    for (; bytes > 0 && NLMSG_OK(message, (unsigned)bytes); message = NLMSG_NEXT(message, bytes))
      if (message->nlmsg_type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET)) answer(fd, message, released);
  }
}
