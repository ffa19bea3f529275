// SPDX-License-Identifier: Apache-2.0
/* Gives libbpf what a spec sets in an object: the first values of global variables, and numbers of entries. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include "record.h"

/* Returns the map of a data section. libbpf gives .rodata, .data and .bss the object's name as a prefix. */
static struct bpf_map *map_of(struct bpf_object *object, const char *section)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object) {
		const char *name = bpf_map__name(map);
		const char *own = *name == '.' ? name : strrchr(name, '.');

		if (bpf_map__is_internal(map) && own && !strcmp(own, section))
			return map;
	}
	return NULL;
}

/* Returns where the value of a variable is, of that many bytes. */
static unsigned char *place_of(struct bpf_object *object, const char *variable, size_t len)
{
	const struct btf *btf = bpf_object__btf(object);
	unsigned char *place = NULL;

	for (__u32 id = 1; btf && id < btf__type_cnt(btf); id++) {
		const struct btf_type *section = btf__type_by_id(btf, id);

		for (int i = 0; btf_is_datasec(section) && i < btf_vlen(section); i++) {
			const struct btf_var_secinfo *entry = btf_var_secinfos(section) + i;
			const struct btf_type *one = btf__type_by_id(btf, entry->type);
			struct bpf_map *map = map_of(object, btf__name_by_offset(btf, section->name_off));
			size_t size;
			unsigned char *data = map ? bpf_map__initial_value(map, &size) : NULL;

			if (!data || strcmp(btf__name_by_offset(btf, one->name_off), variable))
				continue;
			if (place || entry->size != len || entry->offset + len > size)
				die("variable %s has %u bytes, or is there twice", variable, entry->size);
			place = data + entry->offset;
		}
	}
	if (!place)
		die("there is no variable %s", variable);
	return place;
}

/* VARIABLE=VALUE:HEX, where HEX has the variable's bytes. */
static void set_global(struct bpf_object *object, char *text)
{
	char *value = strchr(text, '='), *digits = strrchr(text, ':');
	unsigned char *place;

	if (!value || !digits || value > digits)
		die("no variable, value and bytes: %s", text);
	*value = 0;
	digits++;
	place = place_of(object, text, strlen(digits) / 2);
	for (; *digits; digits += 2) {
		const char pair[] = { digits[0], digits[1], 0 };

		*place++ = strtoul(pair, NULL, 16);
	}
}

/* MAP=NUMBER */
static void set_entries(struct bpf_object *object, char *text)
{
	char *number = strchr(text, '=');
	struct bpf_map *map;

	if (!number)
		die("no map and number: %s", text);
	*number++ = 0;
	map = bpf_object__find_map_by_name(object, text);
	if (!map || bpf_map__set_max_entries(map, strtoul(number, NULL, 10)))
		die("map %s can't be given %s entries", text, number);
}

bool set(struct bpf_object *object, char *argument)
{
	static const char global[] = "global:", entries[] = "entries:";

	if (!strncmp(argument, global, strlen(global)))
		set_global(object, argument + strlen(global));
	else if (!strncmp(argument, entries, strlen(entries)))
		set_entries(object, argument + strlen(entries));
	else
		return false;
	return true;
}
