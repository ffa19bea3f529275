/*
 * The reference of tests/bench: does with libbpf what the agent does for one program, and prints how long that took.
 *
 *   libbpf OBJECT DIRECTORY
 *
 * Reads lines. "+ NAME CGROUP..." opens and loads OBJECT, attaches its one program to each CGROUP, pins program, map and
 * links below DIRECTORY/NAME on bpffs as the agent pins them, reads from the pins what the agent reports, and prints the
 * nanoseconds. "- NAME" undoes it. "= COUNT" opens, loads and closes OBJECT so often, and prints the nanoseconds that the
 * process itself worked, without the kernel. Ends with its input, or with an error. cilium/main.go does the same with
 * cilium/ebpf.
 *
 * The agent does more, which has no reference: it observes what is pinned, checks the object's digest, and notes what must
 * survive a kill.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH 512
#define CGROUPS 256

static void must(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "libbpf: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *at(const char *directory, const char *file)
{
	static char path[PATH];

	must(snprintf(path, sizeof(path), "%s/%s", directory, file) < PATH, "path");
	return path;
}

static const char *const directories[] = { "", "programs", "maps", "links", "links/program" };
#define DIRECTORIES ((int)(sizeof(directories) / sizeof(*directories)))
#define PROG "programs/program"
#define MAP "maps/map"

/* The pin of the link to the `i`th cgroup. */
static const char *link_at(const char *directory, int i)
{
	char file[64];

	snprintf(file, sizeof(file), "links/program/%d", i);
	return at(directory, file);
}

/* The bytes of memory that it holds, which only fdinfo tells. */
static long memlock(int fd)
{
	char path[64], text[4096], *line;
	ssize_t size;
	int fdinfo;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	fdinfo = open(path, O_RDONLY | O_CLOEXEC);
	must(fdinfo >= 0, path);
	size = read(fdinfo, text, sizeof(text) - 1);
	must(size > 0, path);
	close(fdinfo);
	text[size] = 0;
	line = strstr(text, "memlock:");
	must(line != NULL, "memlock");
	return atol(line + sizeof("memlock:"));
}

static int open_cgroup(const char *path)
{
	int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(cgroup >= 0, path);
	return cgroup;
}

/* What the kernel says of a link by its pin, and whether the cgroup's own query lists the program. */
static void read_back_link(const char *directory, int i, const char *cgroup_path, __u32 prog_id)
{
	int link = bpf_obj_get(link_at(directory, i)), cgroup = open_cgroup(cgroup_path);
	struct bpf_link_info link_info = {};
	__u32 ids[64], count = 64, len = sizeof(link_info);

	must(link >= 0, "pin of the link");
	must(!bpf_obj_get_info_by_fd(link, &link_info, &len), "info of the link");
	must(link_info.prog_id == prog_id, "the link's program");
	must(!bpf_prog_query(cgroup, BPF_CGROUP_SOCK_OPS, 0, NULL, ids, &count), "query");
	while (count && ids[count - 1] != prog_id)
		count--;
	must(count, "the program in the cgroup's list");
	close(link);
	close(cgroup);
}

/* What the kernel says of program and map by their pins; gives the program's ID. */
static __u32 read_back(const char *directory)
{
	int prog = bpf_obj_get(at(directory, PROG)), map = bpf_obj_get(at(directory, MAP));
	struct bpf_prog_info prog_info = {};
	struct bpf_map_info map_info = {};
	__u32 maps[64], len;

	must(prog >= 0 && map >= 0, "pins");
	prog_info.map_ids = (__u64)(unsigned long)maps;
	prog_info.nr_map_ids = 64;
	len = sizeof(prog_info);
	must(!bpf_obj_get_info_by_fd(prog, &prog_info, &len), "info of the program");
	len = sizeof(map_info);
	must(!bpf_obj_get_info_by_fd(map, &map_info, &len), "info of the map");
	must(prog_info.nr_map_ids == 1 && maps[0] == map_info.id, "the program's map");
	must(memlock(prog) > 0 && memlock(map) > 0, "memory of program and map");
	close(prog);
	close(map);
	return prog_info.id;
}

static void apply(const void *bytes, size_t size, const char *directory, char *const cgroups[], int count)
{
	struct bpf_object *object = bpf_object__open_mem(bytes, size, NULL);
	struct bpf_link *links[CGROUPS];
	struct bpf_program *prog;
	struct bpf_map *map;
	__u32 id;

	must(object != NULL, "open");
	must(!bpf_object__load(object), "load");
	prog = bpf_object__next_program(object, NULL);
	map = bpf_object__next_map(object, NULL);
	for (int i = 0; i < count; i++) {
		int cgroup = open_cgroup(cgroups[i]);

		links[i] = bpf_program__attach_cgroup(prog, cgroup);
		must(links[i] != NULL, "attach");
		close(cgroup);
	}

	for (int i = 0; i < DIRECTORIES; i++)
		must(!mkdir(at(directory, directories[i]), 0700), directories[i]);
	must(!bpf_program__pin(prog, at(directory, PROG)), "pin of the program");
	must(!bpf_map__pin(map, at(directory, MAP)), "pin of the map");
	for (int i = 0; i < count; i++)
		must(!bpf_link__pin(links[i], link_at(directory, i)), "pin of the link");
	id = read_back(directory);
	for (int i = 0; i < count; i++)
		read_back_link(directory, i, cgroups[i], id);

	for (int i = 0; i < count; i++)
		bpf_link__destroy(links[i]);
	bpf_object__close(object);
}

/* A link's descriptor is the last to go: the kernel then detaches before it returns. */
static void undo(const char *directory)
{
	int link;

	for (int i = 0; (link = bpf_obj_get(link_at(directory, i))) >= 0; i++) {
		must(!unlink(link_at(directory, i)), "unlink of the link");
		close(link);
	}
	must(errno == ENOENT, "open of the link");
	must(!unlink(at(directory, MAP)), "unlink of the map");
	must(!unlink(at(directory, PROG)), "unlink of the program");
	for (int i = DIRECTORIES; i-- > 0;)
		must(!rmdir(at(directory, directories[i])), directories[i]);
}

/* The nanoseconds of user time that opening, loading and closing takes, `count` times. */
static long long load_only(const void *bytes, size_t size, int count)
{
	struct rusage before, after;

	getrusage(RUSAGE_SELF, &before);
	while (count-- > 0) {
		struct bpf_object *object = bpf_object__open_mem(bytes, size, NULL);

		must(object != NULL, "open");
		must(!bpf_object__load(object), "load");
		bpf_object__close(object);
	}
	getrusage(RUSAGE_SELF, &after);
	return (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000000LL +
	       (after.ru_utime.tv_usec - before.ru_utime.tv_usec) * 1000LL;
}

static void *read_all(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	struct stat stat;
	void *bytes;

	must(file && !fstat(fileno(file), &stat), path);
	*size = stat.st_size;
	bytes = malloc(*size);
	must(bytes && fread(bytes, 1, *size, file) == *size, path);
	fclose(file);
	return bytes;
}

int main(int argc, char **argv)
{
	char *line = NULL, directory[PATH], *cgroups[CGROUPS];
	size_t size, room = 0;
	void *bytes;

	if (argc != 3) {
		fprintf(stderr, "usage: libbpf OBJECT DIRECTORY\n");
		return 2;
	}
	libbpf_set_print(NULL);
	bytes = read_all(argv[1], &size);
	must(!mkdir(argv[2], 0700), argv[2]);
	while (getline(&line, &room, stdin) > 0) {
		char *sign = strtok(line, " \n"), *name = strtok(NULL, " \n");

		must(sign && name && snprintf(directory, sizeof(directory), "%s/%s", argv[2], name) < PATH, "path");
		if (*sign == '+') {
			long long start;
			int count = 0;

			while ((cgroups[count] = strtok(NULL, " \n")))
				must(++count < CGROUPS, "so many cgroups");
			start = now();
			apply(bytes, size, directory, cgroups, count);
			printf("%lld\n", now() - start);
		} else if (*sign == '=') {
			printf("%lld\n", load_only(bytes, size, atoi(name)));
		} else {
			undo(directory);
			printf("0\n");
		}
		fflush(stdout);
	}
	free(line);
	must(!rmdir(argv[2]), argv[2]);
	return 0;
}
