// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, and is attached to the sockmap of another BpfProgram, since this object has none. */
// programs: msg
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("sk_msg") int msg(struct sk_msg_md *m)
{
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
