// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: count loads. Linux 6.18 has two types elf_thread_core_info, which makes the relocation in the other program
 * ambiguous; that is of no concern to count. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct memelfnote {
	const char *name;
};

struct elf_thread_core_info {
	struct memelfnote notes[0];
};

int at;

SEC("raw_tp/sys_enter") int other(void *ctx)
{
	at = bpf_core_field_offset(struct elf_thread_core_info, notes);
	return 0;
}

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
