// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, and calls what the linker chose: the strong of two functions and variables, and of two static ones of
 * a name each file its own. It is linked with linked.part.c.
 */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

extern int defined_there;
extern int LINUX_KERNEL_VERSION __kconfig;

int common SEC(".data.shared") = 1;
__weak int overridden = 1;
static volatile int own = 1;

static __attribute__((noinline)) int step(int x)
{
	own++;
	return x + own;
}

__weak __attribute__((noinline)) int choose(int x)
{
	return x + 100;
}

int there(int x);
__hidden int hidden_there(int x);

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	__u32 key = step(ops->op) + choose(ops->op) + there(common) + hidden_there(overridden);
	__u64 value = defined_there + LINUX_KERNEL_VERSION;

	bpf_map_update_elem(&shared, &key, &value, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
