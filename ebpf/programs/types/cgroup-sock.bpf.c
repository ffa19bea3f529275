// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* CgroupSock: denies raw sockets and listening on one port, and counts created and released sockets. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define SOCK_RAW 3
#define REFUSED_PORT 4200

enum { CREATED, RELEASED };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

static void count(__u32 what)
{
	__u64 *sum = bpf_map_lookup_elem(&sockets, &what);

	if (sum)
		__sync_fetch_and_add(sum, 1);
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *sk)
{
	if (sk->type == SOCK_RAW)
		return 0;
	count(CREATED);
	return 1;
}

SEC("cgroup/sock_release")
int sock_release(struct bpf_sock *sk)
{
	count(RELEASED);
	return 1;
}

/* Runs after the port was allocated; 0 releases it. */
SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *sk)
{
	return sk->src_port != REFUSED_PORT;
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *sk)
{
	return sk->src_port != REFUSED_PORT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
