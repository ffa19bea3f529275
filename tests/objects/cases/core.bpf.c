// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads. Relocations against the kernel's types: fields that are there, that have moved, and that never were.
 */
// programs: look
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct task_struct {
	int pid;
	char comm[16];
	struct task_struct *real_parent;
} __attribute__((preserve_access_index));

struct sock___old {
	unsigned int sk_mark;
	unsigned char sk_never_was;
} __attribute__((preserve_access_index));

enum bpf_map_type___later {
	BPF_MAP_TYPE_ARENA___later = 77,
	NEVER_WAS___later,
};

volatile __u64 seen[8];

SEC("sockops") int look(struct bpf_sock_ops *ops)
{
	struct task_struct *task = (void *)ops;
	struct sock___old *sock = (void *)ops;

	seen[0] = task->pid;
	seen[1] = (__u64)&task->comm[3];
	seen[2] = bpf_core_field_offset(task->real_parent);
	seen[3] = bpf_core_field_exists(sock->sk_never_was);
	seen[4] = bpf_core_field_size(sock->sk_mark);
	seen[5] = bpf_core_type_exists(struct sock___old);
	seen[6] = bpf_core_enum_value_exists(enum bpf_map_type___later, BPF_MAP_TYPE_ARENA___later);
	seen[7] = bpf_core_enum_value(enum bpf_map_type___later, NEVER_WAS___later);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
