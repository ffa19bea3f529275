// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* tcp-events in the current form: the map is a variable with BTF in ".maps". */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "tcp_events.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, long);
	__uint(max_entries, COUNTED_EVENTS);
} my_map SEC(".maps");

SEC("sockops")
int my_prog(struct bpf_sock_ops *skops)
{
	COUNT(my_map, skops);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
