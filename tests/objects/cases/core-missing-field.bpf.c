// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: the kernel refuses the program, since the field is missing, and the message names the type and the field:
 * struct task_struct___m.renamed_long_ago. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct___m {
	int renamed_long_ago;
} __attribute__((preserve_access_index));

int n;

SEC("cgroup_skb/egress") int count(struct __sk_buff *skb)
{
	struct task_struct___m *task = (void *)bpf_get_current_task();

	n = BPF_CORE_READ(task, renamed_long_ago);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
