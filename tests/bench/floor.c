/*
 * floor.c - the floor of the benchmark: how fast ONE process with ONE thread
 * can build a lab by raw netlink.
 *
 *   cc -O2 floor.c -o floor -lnftables
 *   ./floor ROUTERS DEVICES [--verify] [--phases] [--hold]
 *
 * prints {"routers":R,"devices":M,"build_ms":..}.  --verify pings from device 0
 * once the clock has stopped and adds "verify":"ok" or what failed (exit status
 * 1).  --phases tells on stderr where the time went.  --hold keeps the lab until
 * stdin ends, to be entered by hand.
 *
 *   ix    bridge ix0 203.0.113.1/24 2001:db8::1/64, with a port per router
 *   rN    wan 203.0.113.(2+N)/24 2001:db8::(2+N)/64, its peer a port of ix0;
 *         bridge lan 10.N.0.1/16 2001:db8:1:N::1/64; firewall and NAT by nft
 *   dK    eth0 in the lan of router N = K%R: 10.N.x.y/16 2001:db8:1:N::xy/64
 *
 * Why it is fast:
 *  - A netlink socket stays in the namespace it was opened in, and unshare()
 *    enters the new one: each is entered once, by being made; no setns().
 *  - What a namespace needs goes in one sendmsg() with one ack: the kernel
 *    answers every error anyway, so only the last message asks.  A later
 *    message can name a link an earlier one makes, as we choose its ifindex.
 *  - Both ends of a veth pair are born where they belong, with one queue.
 *  - Little is sent after a link came up, and routes at the very end: build().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NETNS_DIR "/run/netns"
enum {
    MAX_ROUTERS = 250,                    /* hosts 2..251 of 203.0.113.0/24 */
    MAX_PER_ROUTER = 1000,                /* a bridge takes 1023 ports */
    LO = 1, FIRST = 2, SECOND = 3,        /* ifindexes; lo's is always 1 */
};

/* Ends the program; err is 0 or an errno to be told. */
static void die(int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("floor: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, err ? ": %s\n" : "\n", strerror(err));
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Books the time since the last lap. */
enum { UNSHARE, SYSCTL, NAMING, NETLINK, ROUTES, NFT, PHASES };
static double spent[PHASES], last_lap;

static void lap(int phase)
{
    double t = now_ms();
    spent[phase] += t - last_lap;
    last_lap = t;
}

/* ---- netlink: messages gathered in a batch, sent at once ---------------- */

static struct {
    char buf[32768];
    size_t len;
    struct nlmsghdr *msg;                           /* the one being written */
    unsigned count;
    struct { const char *what; int n; } name[256];  /* by sequence number */
} batch;

static void *put(const void *data, size_t len)
{
    char *at = batch.buf + batch.len;
    batch.len += NLMSG_ALIGN(len);
    if (batch.len > sizeof batch.buf)
        die(0, "netlink batch too long");
    memset(at, 0, NLMSG_ALIGN(len));
    if (data)
        memcpy(at, data, len);
    return at;
}

/* Starts a message; what and n name it should it be refused. */
static void msg(int type, int flags, const void *hdr, size_t len, const char *what, int n)
{
    if (batch.count == sizeof batch.name / sizeof *batch.name)
        die(0, "too many messages in a netlink batch");
    if (batch.msg)
        batch.msg->nlmsg_len = batch.buf + batch.len - (char *)batch.msg;
    batch.msg = put(NULL, sizeof *batch.msg);
    batch.msg->nlmsg_type = type;
    batch.msg->nlmsg_flags = NLM_F_REQUEST | flags;
    batch.msg->nlmsg_seq = batch.count;
    batch.name[batch.count].what = what;
    batch.name[batch.count++].n = n;
    put(hdr, len);
}

static struct rtattr *attr(int type, const void *data, size_t len)
{
    struct rtattr *a = put(NULL, RTA_LENGTH(len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    return a;
}

static void attr_u32(int type, unsigned v) { attr(type, &v, sizeof v); }
static void attr_str(int type, const char *s) { attr(type, s, strlen(s) + 1); }
static struct rtattr *nest(int type) { return attr(type | NLA_F_NESTED, "", 0); }
static void nest_end(struct rtattr *a) { a->rta_len = batch.buf + batch.len - (char *)a; }

static int nl_open(int protocol)
{
    int one = 1, s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (s < 0)
        die(errno, "netlink socket");
    setsockopt(s, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
    setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    return s;
}

/* Dies if h is a refusal, with the kernel's own words, a TLV behind the error. */
static void check(struct nlmsghdr *h)
{
    struct nlmsgerr *e = NLMSG_DATA(h);
    struct rtattr *a = (void *)(e + 1);
    int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *e);
    const char *words = "";
    if (h->nlmsg_type != NLMSG_ERROR || !e->error)
        return;
    for (; h->nlmsg_flags & NLM_F_ACK_TLVS && RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == NLMSGERR_ATTR_MSG)
            words = RTA_DATA(a);
    if (h->nlmsg_seq < batch.count)
        die(-e->error, "%s %d refused (%s)", batch.name[h->nlmsg_seq].what,
            batch.name[h->nlmsg_seq].n, words);
    die(-e->error, "netlink message refused (%s)", words);
}

/* Sends the batch and reads answers until that to its last message.  rtnetlink
 * works inside send(): they are there when it returns. */
static void flush(int sock)
{
    char in[8192] __attribute__((aligned(8)));
    unsigned last = batch.count - 1, seq = -1;
    batch.msg->nlmsg_len = batch.buf + batch.len - (char *)batch.msg;
    batch.msg->nlmsg_flags |= NLM_F_ACK;
    if (send(sock, batch.buf, batch.len, 0) < 0)
        die(errno, "netlink send");
    while (seq != last) {
        int len = recv(sock, in, sizeof in, 0);
        if (len < 0)
            die(errno, "netlink receive");
        for (struct nlmsghdr *h = (void *)in; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
            check(h);
            seq = h->nlmsg_seq;
        }
    }
    batch.len = batch.count = 0;
    batch.msg = NULL;
}

/* ---- messages ----------------------------------------------------------- */

static void add_up(unsigned index, const char *what, int n)
{
    struct ifinfomsg i = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    msg(RTM_NEWLINK, 0, &i, sizeof i, what, n);
}

/* The MAC is fixed, else a bridge takes on that of a port, anew with each. */
static void add_bridge(unsigned index, const char *name, int n)
{
    unsigned char mac[6] = { 2, 0, 0, 0, index, n };
    struct ifinfomsg i = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &i, sizeof i, name, n);
    attr_str(IFLA_IFNAME, name);
    attr(IFLA_ADDRESS, mac, sizeof mac);
    struct rtattr *info = nest(IFLA_LINKINFO);
    attr_str(IFLA_INFO_KIND, "bridge");
    nest_end(info);
}

/* One queue each way: unasked, a veth end gets one per CPU, of which the kernel
 * at once disables all but one and then waits out an RCU grace period with the
 * rtnl lock held: 0.2 ms a pair on two CPUs. */
static void put_name(const char *name)
{
    attr_str(IFLA_IFNAME, name);
    attr_u32(IFLA_NUM_TX_QUEUES, 1);
    attr_u32(IFLA_NUM_RX_QUEUES, 1);
}

/* A veth pair: `name`, still down, in the socket's namespace, and a port of
 * `master` in far_ns.  The port is the message's link and `name` its peer, not
 * the reverse, as only the link's IFLA_MASTER and IFF_UP are heeded. */
static void add_veth(const char *name, int far_ns, unsigned master, int n)
{
    char port[IFNAMSIZ];
    struct ifinfomsg far = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    struct ifinfomsg near = { .ifi_index = FIRST };
    snprintf(port, sizeof port, "p%d", n);
    msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &far, sizeof far, name, n);
    put_name(port);
    attr_u32(IFLA_NET_NS_FD, far_ns);
    attr_u32(IFLA_MASTER, master);
    struct rtattr *info = nest(IFLA_LINKINFO);
    attr_str(IFLA_INFO_KIND, "veth");
    struct rtattr *data = nest(IFLA_INFO_DATA);
    struct rtattr *peer = nest(VETH_INFO_PEER);
    put(&near, sizeof near);
    put_name(name);
    nest_end(peer);
    nest_end(data);
    nest_end(info);
}

struct ip { int family, len; unsigned char b[16]; };

static struct ip v4(int a, int b, int c, int d)
{
    return (struct ip){ AF_INET, 4, { a, b, c, d } };
}

/* 2001:db8:NET:SUBNET::HOST */
static struct ip v6(int net, int subnet, int host)
{
    return (struct ip){ AF_INET6, 16, { 0x20, 0x01, 0x0d, 0xb8, 0, net, 0, subnet,
                                        [14] = host >> 8, host } };
}

/* NODAD: else a v6 address is tentative until a kernel worker gets round to it,
 * even where accept_dad is 0. */
static void add_addr(unsigned index, struct ip a, int prefix, int n)
{
    struct ifaddrmsg m = { .ifa_family = a.family, .ifa_prefixlen = prefix,
        .ifa_index = index, .ifa_flags = a.family == AF_INET6 ? IFA_F_NODAD : 0 };
    msg(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m, "address of node", n);
    attr(IFA_LOCAL, a.b, a.len);
    attr(IFA_ADDRESS, a.b, a.len);
}

/* prefix 0 is the default route */
static void add_route(struct ip dst, int prefix, struct ip via, int n)
{
    struct rtmsg m = { .rtm_family = via.family, .rtm_dst_len = prefix,
        .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
        .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST };
    msg(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m, "route of node", n);
    if (prefix)
        attr(RTA_DST, dst.b, dst.len);
    attr(RTA_GATEWAY, via.b, via.len);
    attr_u32(RTA_OIF, FIRST);
}

/* ---- namespaces --------------------------------------------------------- */

static void write_at(int dir, const char *path, const char *text)
{
    int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(errno, "write %s to %s", text, path);
    close(fd);
}

/* Opens sys/net/ipv6/conf of this namespace.  Once for all that is written, as
 * the step to "ipv6" is dear: a procfs keeps an entry under this name for each
 * namespace that looked, and compares them all in vain before it makes one more
 * (200 us on average with 1000 namespaces).  Hence a procfs of our own that
 * starts empty, which costs 10 us, for every 50.  An ordinary user may not have
 * that and makes do with /proc. */
static int open_conf(void)
{
    static int proc = -1, uses;
    if (uses++ % 50 == 0) {
        int fs = fsopen("proc", FSOPEN_CLOEXEC);
        if (fs >= 0 && !fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
            proc = fsmount(fs, FSMOUNT_CLOEXEC, 0);   /* closing it is dear too */
        if (proc < 0)
            proc = open("/proc", O_PATH | O_CLOEXEC);
        close(fs);
    }
    int conf = openat(proc, "sys/net/ipv6/conf", O_PATH | O_CLOEXEC);
    if (conf < 0)
        die(errno, "sys/net/ipv6/conf");
    return conf;
}

struct node { int sock, ns, conf; };

/* Makes a namespace, goes into it, and names it as `ip netns add` does. */
static struct node new_node(const char *letter, int n)
{
    char path[64];
    struct node node;
    if (unshare(CLONE_NEWNET))
        die(errno, "unshare of node %s%d", letter, n);
    lap(UNSHARE);
    node.conf = open_conf();
    write_at(node.conf, "all/accept_dad", "0");
    write_at(node.conf, "default/accept_dad", "0");
    lap(SYSCTL);
    snprintf(path, sizeof path, n < 0 ? NETNS_DIR "/%s" : NETNS_DIR "/%s%d", letter, n);
    if (mknod(path, S_IFREG | 0444, 0) || mount("/proc/self/ns/net", path, NULL, MS_BIND, NULL))
        die(errno, "naming %s", path);
    lap(NAMING);
    node.sock = nl_open(NETLINK_ROUTE);
    node.ns = open(path, O_RDONLY | O_CLOEXEC);
    if (node.ns < 0)
        die(errno, "%s", path);
    add_up(LO, "lo of node", n);
    return node;
}

/* For a node that forwards, before it has links that would each be told. */
static void forward(int conf)
{
    write_at(conf, "all/forwarding", "1");
    write_at(conf, "../../ipv4/ip_forward", "1");
    lap(SYSCTL);
}

/* The links made from now on, bridge ports, have no IPv6: they have no use for
 * it, and each would get a link-local address and multicast groups, to be
 * reported through the bridge. */
static void no_ipv6_on_ports(int conf)
{
    write_at(conf, "default/disable_ipv6", "1");
    close(conf);
    lap(SYSCTL);
}

/* ---- nft ---------------------------------------------------------------- */

static const char ruleset[] =
    "table inet patchbay {\n"
    " chain forward { type filter hook forward priority 0; policy accept;"
    " ct state established,related accept;"
    " iifname \"wan\" ct status dnat accept;"
    " iifname \"wan\" meta l4proto ipv6-icmp icmpv6 type { destination-unreachable,"
    " packet-too-big, time-exceeded, parameter-problem, echo-request, echo-reply } accept;"
    " iifname \"wan\" drop; }\n"
    " chain input { type filter hook input priority 0; policy accept;"
    " iifname \"wan\" ct state established,related accept;"
    " iifname \"wan\" meta l4proto icmp icmp type echo-request accept;"
    " iifname \"wan\" meta l4proto ipv6-icmp accept;"
    " iifname \"wan\" drop; }\n"
    " chain postrouting { type nat hook postrouting priority 100; policy accept;"
    " oifname \"wan\" meta nfproto ipv4 snat ip to 203.0.113.2; }\n}\n";

static struct { char buf[16384]; size_t len; } compiled;

/* libnftables sends a ruleset by sendmsg(), and finds this one: it keeps what
 * was sent. */
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    compiled.len = 0;
    for (size_t i = 0; i < m->msg_iovlen; compiled.len += m->msg_iov[i++].iov_len) {
        if (compiled.len + m->msg_iov[i].iov_len > sizeof compiled.buf)
            die(0, "compiled ruleset too long");
        memcpy(compiled.buf + compiled.len, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len);
    }
    return syscall(SYS_sendmsg, fd, m, flags);
}

/* Router 0's ruleset is compiled and loaded by libnftables, in a context made in
 * that namespace as its socket stays there.  That is 300 us for each router and
 * 2 ms for the first.  The others get what it sent with their own address put
 * in, 100 us.  The kernel answers nothing but errors. */
static void load_nft(int n)
{
    static unsigned char *address;
    char in[8192] __attribute__((aligned(8)));
    int sock, len;
    if (n == 0) {
        struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        if (!ctx || nft_ctx_buffer_error(ctx))
            die(0, "nft_ctx_new");
        if (nft_run_cmd_from_buffer(ctx, ruleset))
            die(0, "nft: %s", nft_ctx_get_error_buffer(ctx));
        nft_ctx_free(ctx);
        address = memmem(compiled.buf, compiled.len, v4(203, 0, 113, 2).b, 4);
        if (!address)
            die(0, "nft: no address in the compiled ruleset");
    } else {
        address[3] = n + 2;
        sock = nl_open(NETLINK_NETFILTER);
        if (send(sock, compiled.buf, compiled.len, 0) < 0)
            die(errno, "nft ruleset of router %d", n);
        len = recv(sock, in, sizeof in, MSG_DONTWAIT);
        for (struct nlmsghdr *h = (void *)in; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len))
            check(h);
        close(sock);
    }
    lap(NFT);
}

/* ---- the lab ------------------------------------------------------------ */

/* The lab's root: network and mount namespaces of its own, and for an ordinary
 * user a user namespace where we are root.  The tmpfs covers all of /run, as
 * /run/netns need not exist and an ordinary user could not make it. */
static void enter_root(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[32];
    if (unshare((uid ? CLONE_NEWUSER : 0) | CLONE_NEWNS | CLONE_NEWNET))
        die(errno, "unshare of the root");
    if (uid) {
        write_at(AT_FDCWD, "/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "0 %u 1", uid);
        write_at(AT_FDCWD, "/proc/self/uid_map", map);
        snprintf(map, sizeof map, "0 %u 1", gid);
        write_at(AT_FDCWD, "/proc/self/gid_map", map);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
        || mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        || mkdir(NETNS_DIR, 0755))
        die(errno, "a private " NETNS_DIR);
    int sock = nl_open(NETLINK_ROUTE);
    add_up(LO, "lo of the root", 0);
    flush(sock);
    close(sock);
    lap(UNSHARE);
}

static struct node build_exchange(void)
{
    struct node ix = new_node("ix", -1);
    forward(ix.conf);
    add_bridge(FIRST, "ix0", 0);
    add_addr(FIRST, v4(203, 0, 113, 1), 24, 0);
    add_addr(FIRST, v6(0, 0, 1), 64, 0);
    flush(ix.sock);
    lap(NETLINK);
    no_ipv6_on_ports(ix.conf);
    return ix;
}

static struct node build_router(struct node ix, int n)
{
    struct node r = new_node("r", n);
    forward(r.conf);
    add_veth("wan", ix.ns, FIRST, n);
    add_bridge(SECOND, "lan", n);
    add_addr(SECOND, v4(10, n, 0, 1), 16, n);
    add_addr(SECOND, v6(1, n, 1), 64, n);
    add_addr(FIRST, v4(203, 0, 113, n + 2), 24, n);
    add_up(FIRST, "wan", n);
    add_addr(FIRST, v6(0, 0, n + 2), 64, n);
    flush(r.sock);
    lap(NETLINK);
    no_ipv6_on_ports(r.conf);
    load_nft(n);
    return r;
}

static struct node build_device(struct node r, int router, int n, int host)
{
    struct node d = new_node("d", n);
    add_veth("eth0", r.ns, SECOND, n);
    add_addr(FIRST, v4(10, router, host >> 8, host), 16, n);
    add_up(FIRST, "eth0", n);
    add_addr(FIRST, v6(1, router, host), 64, n);
    flush(d.sock);
    close(d.ns);
    close(d.conf);
    lap(NETLINK);
    return d;
}

static void default_routes(struct node node, struct ip via4, struct ip via6, int n)
{
    add_route(via4, 0, via4, n);
    add_route(via6, 0, via6, n);
    flush(node.sock);
    close(node.sock);
}

/* A link that comes up sets kernel workers going (carrier, link-local address),
 * which want the rtnl lock on the other CPU, and whatever we send next waits for
 * them.  So little follows it: the v6 address, which must be put on a link that
 * is up or the route to its prefix comes later, by a worker, and the default
 * route is refused.  The routes are left till the end; meanwhile the workers run
 * beside the next unshare(). */
static void build(int routers, int devices, struct node *r, struct node *d)
{
    enter_root();
    struct node ix = build_exchange();
    for (int i = 0; i < routers; i++)
        r[i] = build_router(ix, i);
    for (int i = 0; i < devices; i++)
        d[i] = build_device(r[i % routers], i % routers, i, i / routers + 2);

    for (int i = 0; i < routers; i++)
        default_routes(r[i], v4(203, 0, 113, 1), v6(0, 0, 1), i);
    for (int i = 0; i < devices; i++)
        default_routes(d[i], v4(10, i % routers, 0, 1), v6(1, i % routers, 1), i);
    for (int i = 0; i < routers; i++)
        add_route(v6(1, i, 0), 64, v6(0, 0, i + 2), i);
    flush(ix.sock);
    lap(ROUTES);
}

/* ---- afterwards: outside the measured time ------------------------------ */

static int ping(const char *ns, const char *target)
{
    int status;
    pid_t pid = fork();
    if (pid < 0)
        die(errno, "fork");
    if (pid == 0) {
        int fd = open(ns, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET))
            die(errno, "entering %s", ns);
        dup2(open("/dev/null", O_WRONLY), 1);
        execlp("ping", "ping", "-n", "-c1", "-W2", target, (char *)NULL);
        die(errno, "ping");
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

/* Prints the "verify" member; returns the exit status. */
static int verify(int routers)
{
    char last[32];
    snprintf(last, sizeof last, "203.0.113.%d", routers + 1);
    const char *target[] = { "203.0.113.1", "2001:db8::1", last };
    for (int i = 0; i < 3; i++)
        if (!ping(NETNS_DIR "/d0", target[i])) {
            printf(",\"verify\":\"no answer from %s\"", target[i]);
            return 1;
        }
    printf(",\"verify\":\"ok\"");
    return 0;
}

static int has(char **argv, const char *option)
{
    while (*argv && strcmp(*argv, option))
        argv++;
    return *argv != NULL;
}

int main(int argc, char **argv)
{
    int routers = argc > 2 ? atoi(argv[1]) : 0, devices = argc > 2 ? atoi(argv[2]) : 0;
    if (routers < 1 || routers > MAX_ROUTERS
        || devices < 1 || devices > routers * MAX_PER_ROUTER) {
        fprintf(stderr, "usage: floor ROUTERS DEVICES [--verify] [--phases] [--hold]\n"
                "up to %d routers, %d devices each\n", MAX_ROUTERS, MAX_PER_ROUTER);
        return 2;
    }
    struct rlimit files;      /* two for a router, one for a device: over 1024 */
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int user = geteuid() != 0;
    struct node *nodes = calloc(routers + devices, sizeof *nodes);

    double start = last_lap = now_ms();
    build(routers, devices, nodes, nodes + routers);
    printf("{\"routers\":%d,\"devices\":%d,\"build_ms\":%.2f", routers, devices, now_ms() - start);

    fflush(stdout);
    int status = has(argv, "--verify") ? verify(routers) : 0;
    puts("}");
    fflush(stdout);
    if (has(argv, "--phases"))
        fprintf(stderr, "ms: unshare %.1f, sysctl %.1f, naming %.1f, netlink %.1f, routes %.1f, "
                "nft %.1f\n", spent[UNSHARE], spent[SYSCTL], spent[NAMING], spent[NETLINK],
                spent[ROUTES], spent[NFT]);
    if (has(argv, "--hold")) {
        fprintf(stderr, "enter with: nsenter -t %d %s-m ip netns exec d0 COMMAND\n", getpid(),
                user ? "-U --preserve-credentials " : "");
        while (getchar() != EOF)
            ;
    }
    return status;
}
