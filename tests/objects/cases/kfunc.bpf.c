// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads where the kernel's BTF has both functions (6.12 and newer); is refused with the name of the missing
 * function elsewhere. Only by this function can a program for Unix sockets change the address. */
// programs: redirect
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bpf_sock_addr_kern {
	void *sk;
};

extern int bpf_sock_addr_set_sun_path(struct bpf_sock_addr_kern *sa, const __u8 *path, __u32 len) __ksym;
extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;

SEC("cgroup/connect_unix") int redirect(struct bpf_sock_addr *ctx)
{
	__u8 path[16] = "/run/other.sock";

	return bpf_sock_addr_set_sun_path(bpf_cast_to_kern_ctx(ctx), path, 15) ? 0 : 1;
}

char LICENSE[] SEC("license") = "GPL";
