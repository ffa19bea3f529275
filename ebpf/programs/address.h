/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* An IPv4 or IPv6 address in sixteen bytes, IPv4 as ::ffff:a.b.c.d. Ports are in host order. */
#pragma once

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

union address {
	__u8 bytes[16];
	__u32 words[4];
};

#define MAPPED bpf_htonl(0xffff)

static __always_inline union address address4(__u32 ip4)
{
	return (union address){.words = {0, 0, MAPPED, ip4}};
}

/* The destination of connect() or sendmsg(). An IPv4 hook may not read the IPv6 fields, and vice versa. */
#define DESTINATION4(ctx) address4((ctx)->user_ip4)
#define DESTINATION6(ctx)                                                                                                  \
	(union address)                                                                                                    \
	{                                                                                                                  \
		.words = {(ctx)->user_ip6[0], (ctx)->user_ip6[1], (ctx)->user_ip6[2], (ctx)->user_ip6[3]}                  \
	}

static __always_inline bool is_ip4(const union address *a)
{
	return !a->words[0] && !a->words[1] && a->words[2] == MAPPED;
}

/* Includes the unspecified addresses: connecting to one reaches the own host. */
static __always_inline bool is_loopback(const union address *a)
{
	if (is_ip4(a))
		return a->bytes[12] == 127 || !a->words[3];
	return !a->words[0] && !a->words[1] && !a->words[2] && (!a->words[3] || a->words[3] == bpf_htonl(1));
}
