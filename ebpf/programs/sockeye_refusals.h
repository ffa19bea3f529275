/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Counts the connections that a guard refuses, by who asked for which destination: docs/refused-connections.md.
 *
 * Include it, and call sockeye_count_refusal() where the program refuses. sockeye's agent finds the map by its name, and
 * reports the pods. A program that calls it only where it refuses pays nothing where it allows.
 */
#pragma once

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* The agent reads these structures by their offsets. */
struct sockeye_refusal {
	__u64 cgroup;	   /* the caller's, by its ID */
	__u8 address[16];  /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;	   /* in host order */
	__u16 protocol;	   /* IPPROTO_TCP, IPPROTO_UDP, ... */
	__u32 reserved;
};

struct sockeye_refusal_count {
	__u64 refused;
	__u64 would_refuse; /* in a dry run */
	__u64 first_ns;	    /* since boot, as CLOCK_BOOTTIME: the first one that was refused, and not in a dry run */
	__u64 last_ns;	    /* the last such one */
};

/* A full map drops the least recent destinations. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct sockeye_refusal);
	__type(value, struct sockeye_refusal_count);
	__uint(max_entries, 1024);
} sockeye_refusals SEC(".maps");

/* Counts one refusal. The address has sixteen bytes. Of two processors at a time one may win the time. */
static __always_inline void sockeye_count_refusal(const void *address, __u16 port, __u16 protocol, bool dry_run)
{
	struct sockeye_refusal_count *count, first = {};
	struct sockeye_refusal key = {.port = port, .protocol = protocol};
	__u64 now;

	key.cgroup = bpf_get_current_cgroup_id();
	__builtin_memcpy(key.address, address, sizeof(key.address));
	count = bpf_map_lookup_elem(&sockeye_refusals, &key);
	if (!count) {
		/* Another processor may have added it meanwhile. */
		bpf_map_update_elem(&sockeye_refusals, &key, &first, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&sockeye_refusals, &key);
		if (!count)
			return;
	}
	if (dry_run) {
		__sync_fetch_and_add(&count->would_refuse, 1);
		return;
	}
	now = bpf_ktime_get_boot_ns();
	if (!count->first_ns)
		count->first_ns = now;
	count->last_ns = now;
	__sync_fetch_and_add(&count->refused, 1);
}
