// SPDX-License-Identifier: Apache-2.0
/* Prints what libbpf's own probes find on the kernel that this runs on, as a table (README.md). As the first process
 * of a guest it prints to the second serial port and powers the machine off. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <bpf/libbpf.h>
#include "../record/features.h"

bool feat_supported(void *cache, unsigned feature);

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0;
}

/* CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON as uid 1000: what the agent has. */
static bool become_agent(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };
	const int kept[] = { CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON };

	for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
		data[CAP_TO_INDEX(kept[i])].effective |= CAP_TO_MASK(kept[i]);
	for (int i = 0; i < 2; i++)
		data[i].permitted = data[i].effective;
	return !prctl(PR_SET_KEEPCAPS, 1) && !setresgid(1000, 1000, 1000) && !setresuid(1000, 1000, 1000) &&
	       !syscall(SYS_capset, &header, data);
}

/* Asks libbpf in a child, since libbpf remembers what it was answered. */
static bool probe(bool as_agent, bool found[FEATURES])
{
	int ends[2];

	if (pipe(ends))
		return false;
	if (!fork()) {
		if (as_agent && !become_agent())
			_exit(1);
		for (unsigned i = 0; i < FEATURES; i++)
			found[i] = feat_supported(NULL, i);
		_exit(write(ends[1], found, FEATURES) != FEATURES);
	}
	close(ends[1]);
	return read(ends[0], found, FEATURES) == FEATURES;
}

static bool print_table(void)
{
	bool as_root[FEATURES], as_agent[FEATURES];
	struct utsname names;

	uname(&names);
	printf("release %s\nversion %s\n", names.release, names.version);
	fflush(stdout);
	if (!probe(false, as_root) || !probe(true, as_agent))
		return false;
	for (unsigned i = 0; i < FEATURES; i++)
		printf("feature %s %d\n", feature_names[i], as_root[i]);
	for (unsigned i = 0; i < FEATURES; i++)
		if (as_agent[i] != as_root[i])
			printf("agent %s %d\n", feature_names[i], as_agent[i]);
	return true;
}

int main(void)
{
	bool first = getpid() == 1, printed;

	if (first) {
		mount("proc", "/proc", "proc", 0, NULL);
		mount("sysfs", "/sys", "sysfs", 0, NULL);
		mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
		if (!freopen("/dev/ttyS1", "w", stdout))
			reboot(RB_POWER_OFF);
	}
	libbpf_set_print(quiet);
	printed = print_table();
	puts(printed ? "# end" : "# the probes failed");
	fflush(stdout);
	if (first) {
		/* What was written is on its way through the port. */
		sleep(1);
		reboot(RB_POWER_OFF);
	}
	return !printed;
}
