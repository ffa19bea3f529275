// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Everything that libbpf changes in BTF before it loads it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define tagged __attribute__((btf_decl_tag("tagged")))
#define user __attribute__((btf_type_tag("user")))
#define hidden __attribute__((visibility("hidden")))
#define in(name) __attribute__((section(name)))

enum wide { SMALL = 1, WIDE = 0x100000000ULL };
enum wider { WIDER = 0x200000000ULL, WIDEST = 0xffffffffffffffffULL };
enum negative { BELOW = -1, ABOVE = 1 };

struct mixed {
	enum wide wide;
	enum wider wider;
	enum negative negative;
	float real;
	double reals[2];
	int user *address;
	int tagged number;
} tagged;

struct mixed global = { .wide = WIDE };
struct mixed zeroed;
static volatile int local = 3;
static volatile const int constant = 4;
hidden int hidden_global = 5;
const volatile int limit tagged = 6;
__weak int weak = 7;
int other in(".data.other") = 8;
hidden int other_hidden in(".data.other") = 9;
static volatile int other_static in(".data.other") = 10;
const volatile char text[5] in(".rodata.text") = "text";
volatile long padded[3] in(".bss.own");
int optional in("?own.part") = 11;

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF_SYSCALL __kconfig __weak;
extern int CONFIG_HZ __kconfig __weak;
extern char CONFIG_LSM[100] __kconfig __weak;
extern unsigned long CONFIG_PHYSICAL_START __kconfig __weak;

extern const void bpf_prog_fops __ksym __weak;
extern const void also_absent __ksym __weak;
extern void kernel_function(struct mixed *, int, long) __ksym __weak;
extern int another_function(const char *name, ...) __ksym __weak;

__noinline int visible(struct mixed *mixed)
{
	return mixed ? mixed->number : 0;
}

hidden __noinline int unseen(struct mixed *mixed)
{
	return mixed ? mixed->number + 1 : 0;
}

__weak hidden __noinline int unseen_weak(void)
{
	return hidden_global;
}

static __noinline int own(struct mixed *mixed)
{
	return mixed->number + local + constant;
}

#define context __attribute__((btf_decl_tag("arg:ctx")))

__noinline int of_context(void *ctx context)
{
	return ctx ? limit : 0;
}

__noinline int of_typed_context(const int number, const void *const ctx context, struct __sk_buff *skb context)
{
	return ctx ? number : limit;
}

hidden __noinline int of_hidden_context(void *first context, void *second context)
{
	return first ? limit : 0;
}

SEC("sockops") int other_program(struct bpf_sock_ops *ops)
{
	return of_context(ops) + of_hidden_context(ops, ops);
}

SEC("cgroup_skb/egress") int program(struct __sk_buff *skb tagged)
{
	long sum = own(&global) + visible(&global) + unseen(&global) + unseen_weak();

	sum += hidden_global + limit + weak + other + other_hidden + other_static + text[skb->len & 3] + padded[0];
	sum += zeroed.number + LINUX_KERNEL_VERSION + CONFIG_BPF_SYSCALL + CONFIG_HZ + CONFIG_LSM[0] + CONFIG_PHYSICAL_START;
	sum += (long)&bpf_prog_fops + (long)&also_absent;
	if (kernel_function)
		kernel_function(&global, 1, 2);
	sum += of_context(skb) + of_typed_context(sum, skb, skb);
	return sum & 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
