/*
 * The measure of tests/bench: does with libbpf what the agent does for one program, and says how long that took.
 *
 *   libbpf OBJECT DIRECTORY
 *
 * Reads lines: "+ NAME CGROUP" opens and loads OBJECT, attaches its program to CGROUP, pins program, map and link in
 * DIRECTORY/NAME on bpffs, reads all three and the cgroup back, and answers with the nanoseconds; "- NAME" undoes it.
 * Ends with its input, or with an error.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH 512

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

/* What the kernel says of the three, and whether the cgroup's own query lists the program. */
static void read_back(int prog, int map, int link, int cgroup)
{
	struct bpf_prog_info prog_info = {};
	struct bpf_map_info map_info = {};
	struct bpf_link_info link_info = {};
	__u32 maps[64], ids[64], count = 64, len;

	prog_info.map_ids = (__u64)(unsigned long)maps;
	prog_info.nr_map_ids = 64;
	len = sizeof(prog_info);
	must(!bpf_obj_get_info_by_fd(prog, &prog_info, &len), "info of the program");
	len = sizeof(map_info);
	must(!bpf_obj_get_info_by_fd(map, &map_info, &len), "info of the map");
	len = sizeof(link_info);
	must(!bpf_obj_get_info_by_fd(link, &link_info, &len), "info of the link");
	must(prog_info.nr_map_ids == 1 && maps[0] == map_info.id, "the program's map");
	must(link_info.prog_id == prog_info.id, "the link's program");
	must(!bpf_prog_query(cgroup, BPF_CGROUP_SOCK_OPS, 0, NULL, ids, &count), "query");
	while (count && ids[count - 1] != prog_info.id)
		count--;
	must(count, "the program in the cgroup's list");
}

static void apply(const void *bytes, size_t size, const char *directory, const char *cgroup_path)
{
	struct bpf_object *object = bpf_object__open_mem(bytes, size, NULL);
	struct bpf_program *prog;
	struct bpf_link *link;
	struct bpf_map *map;
	int cgroup;

	must(object != NULL, "open");
	must(!bpf_object__load(object), "load");
	prog = bpf_object__next_program(object, NULL);
	map = bpf_object__next_map(object, NULL);
	cgroup = open(cgroup_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(cgroup >= 0, cgroup_path);
	link = bpf_program__attach_cgroup(prog, cgroup);
	must(link != NULL, "attach");

	must(!mkdir(directory, 0700), directory);
	must(!bpf_program__pin(prog, at(directory, "prog")), "pin of the program");
	must(!bpf_map__pin(map, at(directory, "map")), "pin of the map");
	must(!bpf_link__pin(link, at(directory, "link")), "pin of the link");
	read_back(bpf_program__fd(prog), bpf_map__fd(map), bpf_link__fd(link), cgroup);

	close(cgroup);
	bpf_link__destroy(link);
	bpf_object__close(object);
}

/* The link's descriptor is the last to go: the kernel then detaches before it returns. */
static void undo(const char *directory)
{
	int link = bpf_obj_get(at(directory, "link"));

	must(link >= 0, "open of the link");
	must(!unlink(at(directory, "link")), "unlink of the link");
	close(link);
	must(!unlink(at(directory, "map")), "unlink of the map");
	must(!unlink(at(directory, "prog")), "unlink of the program");
	must(!rmdir(directory), directory);
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
	char name[64], cgroup[PATH], directory[PATH];
	void *bytes;
	size_t size;
	char sign;

	if (argc != 3) {
		fprintf(stderr, "usage: libbpf OBJECT DIRECTORY\n");
		return 2;
	}
	libbpf_set_print(NULL);
	bytes = read_all(argv[1], &size);
	must(!mkdir(argv[2], 0700), argv[2]);
	while (scanf(" %c %63s", &sign, name) == 2) {
		must(snprintf(directory, sizeof(directory), "%s/%s", argv[2], name) < PATH, "path");
		if (sign == '+') {
			long long start;

			must(scanf(" %511s", cgroup) == 1, "a cgroup");
			start = now();
			apply(bytes, size, directory, cgroup);
			printf("%lld\n", now() - start);
		} else {
			undo(directory);
			printf("0\n");
		}
		fflush(stdout);
	}
	must(!rmdir(argv[2]), argv[2]);
	return 0;
}
