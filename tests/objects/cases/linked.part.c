// SPDX-License-Identifier: Dual BSD/GPL
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

extern int LINUX_KERNEL_VERSION __kconfig;

int defined_there = 5;
int overridden = 2;
int beside SEC(".data.shared") = 7;
static volatile int own = 2;

static __attribute__((noinline)) int step(int x)
{
	own += 2;
	return x * own;
}

__attribute__((noinline)) int choose(int x)
{
	return x + 200;
}

__attribute__((noinline)) int there(int x)
{
	__u32 key = beside;

	return step(x) + !bpf_map_lookup_elem(&shared, &key);
}

__hidden __attribute__((noinline)) int hidden_there(int x)
{
	return step(x) + (LINUX_KERNEL_VERSION > 5);
}

char LICENSE[] SEC("license") = "GPL";
