// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * connect-audit reports who connects where: one event for each connect(), and for TCP a second one with the outcome.
 *
 * connect4 and connect6 run in the caller's context, before anything is sent, so they know the caller. They store the
 * event in the socket, and `outcome` completes it when the connection is established or fails. `outcome` is optional.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include "address.h"

/* If true, connections to the loopback addresses of this host are reported. */
const volatile bool loopback = true;

enum what { ATTEMPT, ESTABLISHED, FAILED };

struct event {
	__u64 time_ns;	       /* since boot, as CLOCK_BOOTTIME */
	__u64 took_ns;	       /* since the attempt */
	__u64 cookie;	       /* the socket's: the same in an attempt and its outcome */
	__u64 cgroup;	       /* the caller's, by its ID, which is its directory's inode */
	__u32 pid;	       /* the caller's process, as the host counts */
	__u32 uid;
	char comm[16];
	union address address; /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;
	__u8 protocol;	       /* IPPROTO_TCP, IPPROTO_UDP, ... */
	enum what what : 8;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 << 10);
} events SEC(".maps");

/* Counts events that did not fit into the ring buffer. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct event);
} attempts SEC(".maps");

static __always_inline void report(struct event *event)
{
	__u32 first = 0;
	__u64 *count;

	if (!bpf_ringbuf_output(&events, event, sizeof(*event), 0))
		return;
	count = bpf_map_lookup_elem(&lost, &first);
	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline int attempt(struct bpf_sock_addr *ctx, union address address)
{
	struct event event = {};

	if (!loopback && is_loopback(&address))
		return 1;
	event.time_ns = bpf_ktime_get_boot_ns();
	event.cookie = bpf_get_socket_cookie(ctx);
	event.cgroup = bpf_get_current_cgroup_id();
	event.pid = bpf_get_current_pid_tgid() >> 32;
	event.uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	event.address = address;
	event.port = bpf_ntohs(ctx->user_port);
	event.protocol = ctx->protocol;
	event.what = ATTEMPT;
	report(&event);
	if (event.protocol == IPPROTO_TCP && ctx->sk) {
		/* A second connect() on the same socket overwrites the first event. */
		struct event *kept = bpf_sk_storage_get(&attempts, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

		if (kept)
			*kept = event;
	}
	return 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return attempt(ctx, DESTINATION4(ctx));
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return attempt(ctx, DESTINATION6(ctx));
}

SEC("sockops")
int outcome(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;
	struct event *event;
	__u8 what;

	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		what = ESTABLISHED;
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (skops->args[0] != BPF_TCP_SYN_SENT || skops->args[1] != BPF_TCP_CLOSE)
			return 1;
		what = FAILED;
		break;
	default:
		return 1;
	}
	event = sk ? bpf_sk_storage_get(&attempts, sk, 0, 0) : 0;
	if (event) {
		struct event done = *event;

		done.time_ns = bpf_ktime_get_boot_ns();
		done.took_ns = done.time_ns - event->time_ns;
		done.what = what;
		report(&done);
		bpf_sk_storage_delete(&attempts, sk);
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
