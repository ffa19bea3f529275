// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tcp-events counts the sockops events 0 to 9. The map has a legacy definition, which libbpf refuses since 1.0.
 * Events beyond the end of the array are not counted.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "tcp_events.h"

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
};

struct bpf_map_def SEC("maps") my_map = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(long),
	.max_entries = COUNTED_EVENTS,
};

SEC("sockops")
int my_prog(struct bpf_sock_ops *skops)
{
	COUNT(my_map, skops);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
