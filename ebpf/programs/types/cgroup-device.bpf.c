// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* CgroupDevice: denies opening /dev/full (EPERM). */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup/dev")
int device(struct bpf_cgroup_dev_ctx *ctx)
{
	int is_character = (ctx->access_type & 0xffff) == BPF_DEVCG_DEV_CHAR;

	return !(is_character && ctx->major == 1 && ctx->minor == 7);
}

char _license[] SEC("license") = "Dual BSD/GPL";
