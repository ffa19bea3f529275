// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: count loads on every kernel. The functions that another program calls are of no concern to it; libbpf
 * refuses the object where the kernel lacks them, since it resolves the externs of all programs. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int pid;
};

extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;

SEC("tp_btf/task_newtask") int other(__u64 *ctx)
{
	struct task_struct *task = bpf_task_from_pid(1);

	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
