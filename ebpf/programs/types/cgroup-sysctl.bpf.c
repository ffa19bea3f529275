// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * CgroupSysctl: denies writing below /proc/sys (EPERM), except for sysctls of the network namespace, which is the pod's
 * own: the container runtime sets some of these from inside the pod's cgroup when it creates a pod.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

SEC("cgroup/sysctl")
int sysctl(struct bpf_sysctl *ctx)
{
	char name[sizeof("net/")] = {};

	if (!ctx->write)
		return 1;
	/* A longer name gives -E2BIG, and its beginning. */
	bpf_sysctl_get_name(ctx, name, sizeof(name), 0);
	return name[0] == 'n' && name[1] == 'e' && name[2] == 't' && name[3] == '/';
}

char _license[] SEC("license") = "Dual BSD/GPL";
