// SPDX-License-Identifier: Dual BSD/GPL
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static volatile const __u32 limit = 2;

__attribute__((noinline)) int other_limit(void)
{
	return limit;
}
