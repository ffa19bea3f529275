// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: plain loads. Whoever uses the arena is refused by name, or loaded as libbpf does. */
// programs: plain
// compiler: clang-19
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, 33); /* BPF_MAP_TYPE_ARENA */
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 4);
} arena SEC(".maps");

#define __arena __attribute__((address_space(1)))

int __arena counter = 7;

SEC("syscall") int use(void *ctx)
{
	counter++;
	return (long)&arena;
}

SEC("sockops") int plain(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
