/*
 * What a workload must not be able to do to its Pod's rules or its sidecar. Prints the error of the call that failed, by
 * name, or "ok" where all went well.
 *
 *   power NAME [PARAMETER] [userns | UID]
 *
 * It first enters a user namespace of its own, where it has every capability, or becomes that user.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct request {
  struct nlmsghdr header;
  char body[256];
};

static void attribute(struct request *r, int type, const void *value, int bytes) {
  struct nlattr *a = (void *)((char *)r + NLMSG_ALIGN(r->header.nlmsg_len));
  a->nla_type = type;
  a->nla_len = NLA_HDRLEN + bytes;
  memcpy((char *)a + NLA_HDRLEN, value, bytes);
  r->header.nlmsg_len = NLMSG_ALIGN(r->header.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

/* Sends one request and returns the kernel's errno, 0 where it did what was asked. */
static int ask(int family, struct request *r) {
  char answer[4096];
  struct nlmsghdr *header = (void *)answer;
  int s = socket(AF_NETLINK, SOCK_RAW, family);
  r->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  if (s < 0 || send(s, r, r->header.nlmsg_len, 0) < 0 || recv(s, answer, sizeof answer, 0) < 0) return errno;
  if (header->nlmsg_type != NLMSG_ERROR) return 0;
  return -((struct nlmsgerr *)NLMSG_DATA(header))->error;
}

static int nfnetlink(int type, const void *value, int attribute_type, int bytes, int family, int resource) {
  struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)), .nlmsg_type = type}};
  *(struct nfgenmsg *)r.body = (struct nfgenmsg){.nfgen_family = family, .res_id = htons(resource)};
  if (bytes) attribute(&r, attribute_type, value, bytes);
  return ask(NETLINK_NETFILTER, &r);
}

/* A queue that nobody has: the sidecar's own could be answered by EBUSY for another reason. */
static int bind_queue(void) {
  struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
  return nfnetlink(NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, &command, NFQA_CFG_CMD, sizeof command, AF_UNSPEC, 77);
}

static int flush_conntrack(void) {
  return nfnetlink(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0, 0, 0, AF_INET, 0);
}

static int read_conntrack(void) {
  struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)),
                                 .nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, .nlmsg_flags = NLM_F_DUMP}};
  return ask(NETLINK_NETFILTER, &r);
}

static int add_route(void) {
  struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)), .nlmsg_type = RTM_NEWROUTE, .nlmsg_flags = NLM_F_CREATE}};
  int link = if_nametoindex("lo");
  struct in_addr to;
  *(struct rtmsg *)r.body = (struct rtmsg){.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_scope = RT_SCOPE_LINK, .rtm_type = RTN_UNICAST};
  inet_pton(AF_INET, "192.0.2.1", &to);
  attribute(&r, RTA_DST, &to, sizeof to);
  attribute(&r, RTA_OIF, &link, sizeof link);
  return ask(NETLINK_ROUTE, &r);
}

static int add_address(void) {
  struct request r = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg)), .nlmsg_type = RTM_NEWADDR, .nlmsg_flags = NLM_F_CREATE}};
  struct in_addr own;
  *(struct ifaddrmsg *)r.body = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = if_nametoindex("lo")};
  inet_pton(AF_INET, "192.0.2.2", &own);
  attribute(&r, IFA_LOCAL, &own, sizeof own);
  return ask(NETLINK_ROUTE, &r);
}

static int option(int level, int name, int value) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  return setsockopt(s, level, name, &value, sizeof value) ? errno : 0;
}

static int made(int s) { return s < 0 ? errno : 0; }

static int open_file(const char *path, int flags) { return made(open(path, flags)); }

/* A TCP socket that says it is established, without a handshake: the packet path would take its packets for an old connection's. */
static int repair(void) { return option(IPPROTO_TCP, TCP_REPAIR, 1); }

static int process_file(const char *pid, const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
  return open_file(path, O_RDONLY);
}

static int read_memory(int pid) {
  char byte;
  struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
  return process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 ? errno : 0;
}

static int take_descriptor(int pid) {
  int process = syscall(SYS_pidfd_open, pid, 0);
  if (process < 0) return errno;
  return made(syscall(SYS_pidfd_getfd, process, 0, 0));
}

/* Reads through the folder of a process what its mount namespace has. */
static int list_root(const char *pid, const char *below) {
  char path[256];
  snprintf(path, sizeof path, "root%s", below);
  return process_file(pid, path);
}

static int bind_port(int type, const char *address, int port) {
  int one = 1, s;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  int is6 = inet_pton(AF_INET6, address, &v6.sin6_addr) == 1;
  inet_pton(AF_INET, address, &v4.sin_addr);
  s = socket(is6 ? AF_INET6 : AF_INET, type, 0);
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (is6) setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (bind(s, is6 ? (void *)&v6 : (void *)&v4, is6 ? sizeof v6 : sizeof v4)) return errno;
  return type == SOCK_STREAM && listen(s, 1) ? errno : 0;
}

static int perform(const char *name, const char *parameter) {
  int pid = atoi(parameter);
  if (!strcmp(name, "packet-socket")) return made(socket(AF_PACKET, SOCK_RAW, 0));
  if (!strcmp(name, "raw-socket")) return made(socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
  if (!strcmp(name, "raw-socket-6")) return made(socket(AF_INET6, SOCK_RAW, IPPROTO_RAW));
  if (!strcmp(name, "xdp-socket")) return made(socket(44, SOCK_RAW, 0));
  if (!strcmp(name, "mark")) return option(SOL_SOCKET, SO_MARK, 0x20000000);
  if (!strcmp(name, "transparent")) return option(IPPROTO_IP, IP_TRANSPARENT, 1);
  if (!strcmp(name, "repair")) return repair();
  if (!strcmp(name, "bind-queue")) return bind_queue();
  if (!strcmp(name, "read-conntrack")) return read_conntrack();
  if (!strcmp(name, "flush-conntrack")) return flush_conntrack();
  if (!strcmp(name, "add-route")) return add_route();
  if (!strcmp(name, "add-address")) return add_address();
  if (!strcmp(name, "ask-nftables")) return nfnetlink(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, 0, 0, AF_UNSPEC, 0);
  if (!strcmp(name, "join-network")) {
    int other = open(parameter, O_RDONLY);
    return other < 0 ? errno : setns(other, CLONE_NEWNET) ? errno : 0;
  }
  if (!strcmp(name, "list")) return open_file(parameter, O_RDONLY);
  if (!strcmp(name, "bind-tcp")) return bind_port(SOCK_STREAM, parameter, 15900);
  if (!strcmp(name, "trace")) return ptrace(PTRACE_SEIZE, pid, 0, 0) ? errno : 0;
  if (!strcmp(name, "memory")) return process_file(parameter, "mem");
  if (!strcmp(name, "memory-map")) return process_file(parameter, "maps");
  if (!strcmp(name, "environment")) return process_file(parameter, "environ");
  if (!strcmp(name, "descriptors")) return process_file(parameter, "fd");
  if (!strcmp(name, "network-of")) return process_file(parameter, "ns/net");
  if (!strcmp(name, "credentials-of")) return list_root(parameter, "/run/synguard/credentials");
  if (!strcmp(name, "read-memory")) return read_memory(pid);
  if (!strcmp(name, "take-descriptor")) return take_descriptor(pid);
  fprintf(stderr, "power: no %s\n", name);
  exit(2);
}

int main(int count, char **arguments) {
  int uid = count > 3 ? atoi(arguments[3]) : 0, error;
  if (count < 2) return 2;
  if (uid && (setgid(uid) || setuid(uid))) error = errno;
  else if (count > 3 && !strcmp(arguments[3], "userns") && unshare(CLONE_NEWUSER)) error = errno;
  else error = perform(arguments[1], count > 2 ? arguments[2] : "");
  printf("%s\n", error ? strerrorname_np(error) : "ok");
  return 0;
}
