// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads with the values and numbers of entries that the second line sets. */
// programs: prog
// settings: global:limit=9:0900000000000000 global:low=-2:feff global:on=true:01 global:list=[1,2]:010002000000
// settings: global:name=eth0:6574683000000000 global:pair={"b":7}:0000000007000000 global:which=SECOND:05000000
// settings: global:counter=0x10:1000000000000000 global:apart=3:03000000 global:here=1:01000000
// settings: entries:table=77 entries:ring=5000 entries:events=3 entries:unsized=12
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum which { FIRST, SECOND = 5 };
struct pair {
	int a, b;
};

const volatile __u64 limit = 1;
const volatile short low = 5;
_Bool on;
__u16 list[3] = { 7, 7, 7 };
char name[8] = "lo";
struct pair pair = { 3, 4 };
enum which which;
__u64 counter;
int apart SEC(".data.apart") = 8;
static volatile int here;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, int);
	__type(value, struct pair);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, int);
	__type(value, long);
} unsized SEC(".maps");

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	int key = low + list[ops->op & 1] + name[ops->op & 7] + pair.b + which + apart + here;
	struct pair *found = bpf_map_lookup_elem(&table, &key);
	long *other = bpf_map_lookup_elem(&unsized, &key);

	counter++;
	bpf_perf_event_output(ops, &events, BPF_F_CURRENT_CPU, &key, sizeof(key));
	bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE);
	return on && found && other && found->a < limit;
}
char LICENSE[] SEC("license") = "GPL";
