// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, as with libbpf, although the pointers in .rodata stay what the compiler wrote: no loader can know the
 * addresses. Only the first program reads them.
 */
// programs: first second
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static const char *const words[] = { "one", "two", "three" };
int numbers[3] = { 4, 5, 6 };
int *const volatile chosen = &numbers[1];

SEC("sockops") int first(struct bpf_sock_ops *ops)
{
	const char *word = words[ops->op % 3];

	return (long)word + (long)chosen;
}

SEC("cgroup/dev") int second(struct bpf_cgroup_dev_ctx *ctx)
{
	return numbers[2];
}

char LICENSE[] SEC("license") = "GPL";
