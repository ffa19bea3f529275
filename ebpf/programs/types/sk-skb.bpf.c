// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * SkSkb: handles received data. A sockops program adds the sockets accepted on two ports to two sockmaps.
 *
 * Port 4203 receives messages of a length byte and that many more: the parser returns where each ends, and the verdict
 * counts them and drops those that begin with '!'. Port 4204 echoes without a process: its verdict sends the data back.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MESSAGES_PORT 4203
#define ECHO_PORT 4204

enum { PASSED, DROPPED };

#define SOCKMAP(name)                                                          \
	struct {                                                               \
		__uint(type, BPF_MAP_TYPE_SOCKMAP);                            \
		__uint(max_entries, 256);                                      \
		__type(key, __u32);                                            \
		__type(value, __u64);                                          \
	} name SEC(".maps")

SOCKMAP(streams);
SOCKMAP(echoes);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} messages SEC(".maps");

static __u32 slot(__u32 remote_port)
{
	return bpf_ntohl(remote_port) & 0xff;
}

SEC("sockops")
int accepted(struct bpf_sock_ops *ctx)
{
	__u32 key = slot(ctx->remote_port);

	if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (ctx->local_port == MESSAGES_PORT)
		bpf_sock_map_update(ctx, &streams, &key, BPF_ANY);
	if (ctx->local_port == ECHO_PORT)
		bpf_sock_map_update(ctx, &echoes, &key, BPF_ANY);
	return 1;
}

/*
 * Returns the length of the message that begins here, or 0 while it is unknown. A message may span segments but must
 * begin at a segment's start: the kernel always passes the segment's start, not the message's.
 */
SEC("sk_skb/stream_parser")
int parse(struct __sk_buff *skb)
{
	__u8 length;

	return bpf_skb_load_bytes(skb, 0, &length, 1) ? 0 : 1 + length;
}

SEC("sk_skb/stream_verdict")
int judge(struct __sk_buff *skb)
{
	__u8 first = 0;
	__u32 what;
	__u64 *count;

	bpf_skb_load_bytes(skb, 1, &first, 1);
	what = first == '!' ? DROPPED : PASSED;
	count = bpf_map_lookup_elem(&messages, &what);
	if (count)
		__sync_fetch_and_add(count, 1);
	return what == DROPPED ? SK_DROP : SK_PASS;
}

SEC("sk_skb/verdict")
int echo(struct __sk_buff *skb)
{
	return bpf_sk_redirect_map(skb, &echoes, slot(skb->remote_port), 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
