// SPDX-License-Identifier: Apache-2.0
/* Answers what libbpf asks of the machine by other ways than bpf(2): features, release, files below /proc, /sys and
 * /boot. The linker replaces libbpf's references to these functions (--wrap). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>
#include "features.h"
#include "record.h"

struct file {
	const char *path;
	char *text;
	size_t len;
};

bool real;
static bool features[FEATURES];
static struct utsname names;
static const char *kernel_btf;
static bool configured = true;
static struct file cpus = { .path = "/sys/devices/system/cpu/possible" };
static struct file symbols = { .path = "/proc/kallsyms" };
static struct file config = { .path = "/boot/config-" };

static void append(struct file *file, const char *line)
{
	size_t len = strlen(line);

	file->text = realloc(file->text, file->len + len + 2);
	if (!file->text)
		die("no memory");
	memcpy(file->text + file->len, line, len);
	strcpy(file->text + file->len + len, "\n");
	file->len += len + 1;
}

static void set_feature(const char *words)
{
	char name[64];
	int value;

	if (sscanf(words, "%63s %d", name, &value) != 2)
		die("feature %s", words);
	for (size_t i = 0; i < FEATURES; i++)
		if (!strcmp(name, feature_names[i])) {
			features[i] = value;
			return;
		}
	die("libbpf 1.7 has no feature %s", name);
}

static void read_line(char *line)
{
	char *key = strtok(line, " "), *rest = strtok(NULL, "");

	if (!key || *key == '#' || !strcmp(key, "agent"))
		return;
	if (!strcmp(key, "noconfig"))
		configured = false;
	else if (!rest)
		die("a line of the table says only %s", key);
	else if (!strcmp(key, "release"))
		snprintf(names.release, sizeof(names.release), "%s", rest);
	else if (!strcmp(key, "version"))
		snprintf(names.version, sizeof(names.version), "%s", rest);
	else if (!strcmp(key, "cpus"))
		append(&cpus, rest);
	else if (!strcmp(key, "ksym"))
		append(&symbols, rest);
	else if (!strcmp(key, "config"))
		append(&config, rest);
	else if (!strcmp(key, "feature"))
		set_feature(rest);
	else
		die("a line of the table begins with %s", key);
}

FILE *__real_fopen64(const char *path, const char *mode);
int __real_open64(const char *path, int flags, ...);
gzFile __real_gzopen64(const char *path, const char *mode);

void read_table(const char *path, const char *btf)
{
	FILE *table = __real_fopen64(path, "re");
	char line[1024];

	if (!table)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), table)) {
		line[strcspn(line, "\n")] = 0;
		read_line(line);
	}
	fclose(table);
	kernel_btf = btf;
}

bool __real_feat_supported(void *cache, unsigned feature);
bool __wrap_feat_supported(void *cache, unsigned feature)
{
	if (real)
		return __real_feat_supported(cache, feature);
	if (cache || feature >= FEATURES)
		die("libbpf asks for feature %u", feature);
	return features[feature];
}

/* libbpf raises the limit of locked memory for kernels that count maps by it. */
int __wrap_setrlimit64(int resource, const void *limits)
{
	(void)resource, (void)limits;
	return 0;
}

int __real_uname(struct utsname *out);
int __wrap_uname(struct utsname *out)
{
	if (real)
		return __real_uname(out);
	*out = names;
	return 0;
}

static int content(const struct file *file)
{
	int fd = memfd_create(file->path, MFD_CLOEXEC);

	if (fd < 0 || (size_t)write(fd, file->text, file->len) != file->len || lseek(fd, 0, SEEK_SET))
		die("memfd: %s", strerror(errno));
	return fd;
}

/* A file of the machine comes from the table, or is absent; others are the object's own. */
static bool of_machine(const char *path)
{
	return !real && (!strncmp(path, "/proc/", 6) || !strncmp(path, "/sys/", 5) || !strncmp(path, "/boot/", 6));
}

int __wrap_open64(const char *path, int flags, ...)
{
	if (real)
		return __real_open64(path, flags, 0);
	if (!strcmp(path, "/sys/kernel/btf/vmlinux"))
		return __real_open64(kernel_btf, O_RDONLY | O_CLOEXEC);
	if (!strcmp(path, cpus.path))
		return content(&cpus);
	if (of_machine(path))
		die("libbpf opens %s", path);
	return __real_open64(path, flags, 0);
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
	if (!real && !strcmp(path, symbols.path))
		return fdopen(content(&symbols), "r");
	if (of_machine(path))
		die("libbpf opens %s", path);
	return __real_fopen64(path, mode);
}

gzFile __wrap_gzopen64(const char *path, const char *mode)
{
	if (real)
		return __real_gzopen64(path, mode);
	if (configured && !strncmp(path, config.path, strlen(config.path)))
		return gzdopen(content(&config), mode);
	errno = ENOENT;
	return NULL;
}

int __real_faccessat(int folder, const char *path, int mode, int flags);
int __wrap_faccessat(int folder, const char *path, int mode, int flags)
{
	if (real)
		return __real_faccessat(folder, path, mode, flags);
	if (!strcmp(path, "/sys/kernel/btf/vmlinux"))
		return 0;
	/* As on all distributions but Ubuntu. */
	if (strcmp(path, "/proc/version_signature"))
		die("libbpf looks for %s", path);
	errno = ENOENT;
	return -1;
}
