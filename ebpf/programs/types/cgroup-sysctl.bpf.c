// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* CgroupSysctl: denies writing below /proc/sys (EPERM). */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup/sysctl")
int sysctl(struct bpf_sysctl *ctx)
{
	return !ctx->write;
}

char _license[] SEC("license") = "Dual BSD/GPL";
