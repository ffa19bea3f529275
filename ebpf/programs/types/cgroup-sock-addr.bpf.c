// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * CgroupSockAddr: a service without a proxy. Connections and datagrams to the service's address, 192.0.2.1 or
 * 2001:db8::1, go to the loopback address, and processes still see the service's address. Connections to its port 25
 * are denied. A bind to port 4201 gets port 4202, and the process still sees 4201.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SERVICE4 bpf_htonl(0xc0000201)	/* 192.0.2.1 */
#define LOOPBACK4 bpf_htonl(0x7f000001) /* 127.0.0.1 */
#define SERVICE6 bpf_htonl(0x20010db8)	/* 2001:db8:: */
#define REFUSED bpf_htons(25)
#define ASKED bpf_htons(4201)
#define GIVEN bpf_htons(4202)

/* The original destination addresses by the socket's cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} led SEC(".maps");

static void remember(struct bpf_sock_addr *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	__u32 led_away = 1;

	bpf_map_update_elem(&led, &socket, &led_away, BPF_ANY);
}

static int was_led(struct bpf_sock_addr *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);

	return bpf_map_lookup_elem(&led, &socket) != 0;
}

static void to_loopback4(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip4 != SERVICE4)
		return;
	remember(ctx);
	ctx->user_ip4 = LOOPBACK4;
}

static void to_loopback6(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip6[0] != SERVICE6)
		return;
	remember(ctx);
	ctx->user_ip6[0] = 0;
}

static void to_service4(struct bpf_sock_addr *ctx)
{
	if (ctx->user_ip4 == LOOPBACK4 && was_led(ctx))
		ctx->user_ip4 = SERVICE4;
}

static void to_service6(struct bpf_sock_addr *ctx)
{
	if (!ctx->user_ip6[0] && ctx->user_ip6[3] == bpf_htonl(1) && was_led(ctx))
		ctx->user_ip6[0] = SERVICE6;
}

static int refused4(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip4 == SERVICE4 && ctx->user_port == REFUSED;
}

static int refused6(struct bpf_sock_addr *ctx)
{
	return ctx->user_ip6[0] == SERVICE6 && ctx->user_port == REFUSED;
}

/* 0 denies the call (EPERM); only the hooks for connect, sendmsg and bind may return it. */
#define AWAY(hook, version)                                                    \
	SEC("cgroup/" #hook #version)                                          \
	int hook##version(struct bpf_sock_addr *ctx)                           \
	{                                                                      \
		if (refused##version(ctx))                                     \
			return 0;                                              \
		to_loopback##version(ctx);                                     \
		return 1;                                                      \
	}

#define BACK(hook, version)                                                    \
	SEC("cgroup/" #hook #version)                                          \
	int hook##version(struct bpf_sock_addr *ctx)                           \
	{                                                                      \
		to_service##version(ctx);                                      \
		return 1;                                                      \
	}

#define GIVE(version)                                                          \
	SEC("cgroup/bind" #version)                                            \
	int bind##version(struct bpf_sock_addr *ctx)                           \
	{                                                                      \
		if (ctx->user_port == ASKED)                                   \
			ctx->user_port = GIVEN;                                \
		return 1;                                                      \
	}

#define TELL(version)                                                          \
	SEC("cgroup/getsockname" #version)                                     \
	int getsockname##version(struct bpf_sock_addr *ctx)                    \
	{                                                                      \
		if (ctx->user_port == GIVEN)                                   \
			ctx->user_port = ASKED;                                \
		return 1;                                                      \
	}

AWAY(connect, 4)
AWAY(connect, 6)
AWAY(sendmsg, 4)
AWAY(sendmsg, 6)
BACK(recvmsg, 4)
BACK(recvmsg, 6)
BACK(getpeername, 4)
BACK(getpeername, 6)
GIVE(4)
GIVE(6)
TELL(4)
TELL(6)

char _license[] SEC("license") = "Dual BSD/GPL";
