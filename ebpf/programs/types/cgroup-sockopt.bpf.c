// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * CgroupSockopt: replaces an IP_TTL below 32 by 64, denies a receive buffer above 1 MiB, and returns 0 to each process
 * that asks for IP_TOS.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define SOL_SOCKET 1
#define SO_RCVBUF 8
#define IP_TOS 1
#define IP_TTL 2
#define SOL_IP 0

/* 0 denies the call (EPERM). */
SEC("cgroup/setsockopt")
int set(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;

	if ((void *)(value + 1) > ctx->optval_end)
		return 1;
	if (ctx->level == SOL_SOCKET && ctx->optname == SO_RCVBUF)
		return *value <= 1 << 20;
	if (ctx->level == SOL_IP && ctx->optname == IP_TTL && *value < 32)
		*value = 64;
	return 1;
}

SEC("cgroup/getsockopt")
int get(struct bpf_sockopt *ctx)
{
	int *value = ctx->optval;

	if ((void *)(value + 1) > ctx->optval_end)
		return 1;
	if (ctx->level == SOL_IP && ctx->optname == IP_TOS)
		*value = 0;
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
