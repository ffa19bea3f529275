// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tcp-tune sets options of TCP sockets that connect, listen or accept. An option that is 0, false or "" is not set.
 *
 * It runs before the SYN and at listen(), so that the buffer sizes determine the window scale. It runs again for
 * accepted connections, because their listener may be older than the attachment.
 */
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <asm/socket.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#define SOL_TCP 6

const volatile char congestion_control[16] = ""; /* as in net.ipv4.tcp_available_congestion_control */
const volatile __u32 send_buffer = 0;		 /* bytes, at most net.core.wmem_max; the kernel doubles it */
const volatile __u32 receive_buffer = 0;	 /* bytes, at most net.core.rmem_max; the kernel doubles it */
const volatile __u32 keepalive_idle = 0;	 /* seconds; any of the three also turns keepalive on */
const volatile __u32 keepalive_interval = 0;	 /* seconds */
const volatile __u32 keepalive_count = 0;	 /* probes */
const volatile bool no_delay = false;

enum option {
	CONGESTION_CONTROL,
	SEND_BUFFER,
	RECEIVE_BUFFER,
	KEEPALIVE,
	KEEPALIVE_IDLE,
	KEEPALIVE_INTERVAL,
	KEEPALIVE_COUNT,
	NO_DELAY,
	OPTIONS,
};

struct result {
	__u64 set;
	__u64 refused;
	__s64 last_error; /* a negative errno */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct result);
	__uint(max_entries, OPTIONS);
} results SEC(".maps");

static __always_inline void note(__u32 option, int error)
{
	struct result *result = bpf_map_lookup_elem(&results, &option);

	if (!result)
		return;
	__sync_fetch_and_add(error ? &result->refused : &result->set, 1);
	if (error)
		result->last_error = error;
}

static __always_inline void set(struct bpf_sock_ops *skops, __u32 option, int level, int name, int value)
{
	if (value)
		note(option, bpf_setsockopt(skops, level, name, &value, sizeof(value)));
}

SEC("sockops")
int tune(struct bpf_sock_ops *skops)
{
	char congestion[sizeof(congestion_control)];

	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		break;
	default:
		return 1;
	}
	if (congestion_control[0]) {
		for (int i = 0; i < sizeof(congestion); i++)
			congestion[i] = congestion_control[i];
		note(CONGESTION_CONTROL, bpf_setsockopt(skops, SOL_TCP, TCP_CONGESTION, congestion, sizeof(congestion)));
	}
	set(skops, SEND_BUFFER, SOL_SOCKET, SO_SNDBUF, send_buffer);
	set(skops, RECEIVE_BUFFER, SOL_SOCKET, SO_RCVBUF, receive_buffer);
	set(skops, KEEPALIVE, SOL_SOCKET, SO_KEEPALIVE, keepalive_idle || keepalive_interval || keepalive_count);
	set(skops, KEEPALIVE_IDLE, SOL_TCP, TCP_KEEPIDLE, keepalive_idle);
	set(skops, KEEPALIVE_INTERVAL, SOL_TCP, TCP_KEEPINTVL, keepalive_interval);
	set(skops, KEEPALIVE_COUNT, SOL_TCP, TCP_KEEPCNT, keepalive_count);
	set(skops, NO_DELAY, SOL_TCP, TCP_NODELAY, no_delay);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
