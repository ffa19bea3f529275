// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * CgroupSockAddr on Unix sockets (Linux 6.7): denies user 65534, nobody, to connect or send a datagram to a socket's
 * path, and counts the calls that return addresses.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define NOBODY 65534

enum { RECVMSG, GETPEERNAME, GETSOCKNAME };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} told SEC(".maps");

static int is_allowed(void)
{
	return (__u32)bpf_get_current_uid_gid() != NOBODY;
}

static int count(__u32 what)
{
	__u64 *sum = bpf_map_lookup_elem(&told, &what);

	if (sum)
		__sync_fetch_and_add(sum, 1);
	return 1;
}

SEC("cgroup/connect_unix")
int connect_unix(struct bpf_sock_addr *ctx)
{
	return is_allowed();
}

SEC("cgroup/sendmsg_unix")
int sendmsg_unix(struct bpf_sock_addr *ctx)
{
	return is_allowed();
}

SEC("cgroup/recvmsg_unix")
int recvmsg_unix(struct bpf_sock_addr *ctx)
{
	return count(RECVMSG);
}

SEC("cgroup/getpeername_unix")
int getpeername_unix(struct bpf_sock_addr *ctx)
{
	return count(GETPEERNAME);
}

SEC("cgroup/getsockname_unix")
int getsockname_unix(struct bpf_sock_addr *ctx)
{
	return count(GETSOCKNAME);
}

char _license[] SEC("license") = "Dual BSD/GPL";
