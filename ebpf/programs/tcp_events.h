/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counts sockops events by number, for both forms of tcp-events. */
#pragma once

/* BPF_SOCK_OPS_VOID (0) to BPF_SOCK_OPS_RETRANS_CB (9), enum in linux/bpf.h. */
#define COUNTED_EVENTS 10

/* The add is atomic because several CPUs may count the same event at once. */
#define COUNT(map, skops)                                                      \
	do {                                                                   \
		__u32 event = (skops)->op;                                     \
		long *count = bpf_map_lookup_elem(&(map), &event);             \
		if (count)                                                     \
			__sync_fetch_and_add(count, 1);                        \
	} while (0)
