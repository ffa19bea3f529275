"""Functions and programs, and the source as a whole."""

from . import core, data

HEAD = """// SPDX-License-Identifier: Dual BSD/GPL
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* libbpf calls only functions in .text, so it gets a twin of the program, which has all functions there. */
#ifdef TWIN
#define APART(name)
#else
#define APART(name) __attribute__((section(".text" name)))
#endif
"""
CONTEXTS = {
    "sockops": "bpf_sock_ops",
    "cgroup_skb/ingress": "__sk_buff",
    "cgroup_skb/egress": "__sk_buff",
    "cgroup/sock_create": "bpf_sock",
    "cgroup/sock_release": "bpf_sock",
    "cgroup/post_bind4": "bpf_sock",
    "cgroup/bind4": "bpf_sock_addr",
    "cgroup/connect4": "bpf_sock_addr",
    "cgroup/connect6": "bpf_sock_addr",
    "cgroup/sendmsg4": "bpf_sock_addr",
    "cgroup/recvmsg6": "bpf_sock_addr",
    "cgroup/getpeername4": "bpf_sock_addr",
    "cgroup/getsockopt": "bpf_sockopt",
    "cgroup/setsockopt": "bpf_sockopt",
    "cgroup/sysctl": "bpf_sysctl",
    "cgroup/dev": "bpf_cgroup_dev_ctx",
    "sk_msg": "sk_msg_md",
    "sk_skb/stream_parser": "__sk_buff",
    "sk_skb/stream_verdict": "__sk_buff",
    "sk_skb/verdict": "__sk_buff",
    "?sockops": "bpf_sock_ops",
    "cgroup/sock": "bpf_sock",
    "cgroup/connect_unix": "bpf_sock_addr",
    "cgroup/getsockname_unix": "bpf_sock_addr",
}
# Programs that nobody names.
FOREIGN = [
    "tc",
    "xdp",
    "kprobe/f",
    "tp_btf/never_was",
    "struct_ops/x",
    "usdt",
    "fentry/never_was",
    "?tc",
    "of/ones/own",
    "tcx/ingress",
]


class Source:
    def __init__(self, random):
        self.random = random
        self.flags = self.chosen_flags()
        self.apart = random.random() < 0.08
        # Several programs share a section.
        self.sections = random.sample(list(CONTEXTS), random.choice((1, 2, 4)))
        types, structs = data.types(random)
        self.maps = [data.Map(random, number, structs) for number in range(random.randint(0, 4))]
        self.programs = [f"program_{number}" for number in range(random.randint(1, 4))]
        if random.random() < 0.4:
            outer = data.Outer(random, len(self.maps), structs, list(self.maps), self.programs)
            self.maps.append(outer)
        self.globals = [data.Global(random, number, structs) for number in range(random.randint(0, 6))]
        flavours = [core.Flavour(random, number) for number in range(random.choice((0, 0, 1, 3)))]
        # C has only one struct of a name.
        self.flavours = list({one.name: one for one in flavours}.values())
        self.flavours += [core.Names(random, 10 + number) for number in range(random.choice((0, 0, 1, 2)))]
        externs = random.sample(core.EXTERNS, random.choice((0, 0, 0, 1, 2, 4)))
        self.uses = [use for part in (*self.maps, *self.globals, *self.flavours) for use in part.uses(random)]
        self.uses += [use for _, use in externs] * 2
        self.callees = []
        self.functions = [self.function(number) for number in range(random.randint(0, 5))]
        bodies = [self.program(name) for name in self.programs]
        foreign = [self.foreign(number) for number in range(random.choice((0, 0, 1, 2)))]
        random.shuffle(bodies)
        self.parts = [HEAD, types, *(one.source for one in self.flavours), *(declared for declared, _ in externs)]
        # The values of a program array are declared before it.
        self.parts += [f"int {name}();" for name in self.programs] if self.programs_in_maps() else []
        self.parts += [one.source for one in (*self.maps, *self.globals)]
        self.parts += [*self.functions, *foreign, *bodies, *self.tail()]

    def chosen_flags(self):
        random = self.random
        flags = [random.choice(("-O2", "-O2", "-O1", "-Os")), f"-mcpu=v{random.choice((1, 2, 3, 3))}"]
        self.divided = random.random() < 0.03
        flags += ["-ffunction-sections"] * self.divided
        return flags + random.choice((["-fno-inline"], [], []))

    def programs_in_maps(self):
        return any("(void *)&program_" in one.source for one in self.maps)

    def statements(self, most):
        random = self.random
        choices = self.uses + [
            "n *= 3;",
            "if (n > 5) n ^= 0x123456789abcdefLL;",
            'asm volatile("" : "+r"(n));',
            "__sync_fetch_and_add(&n, 1);",
            'bpf_printk("n is %d", n);',
            '{ char text[] = "twelve bytes"; n += bpf_get_current_comm(text, sizeof(text)); }',
            'for (int i = 0; i < n; i++) asm volatile("" : "+r"(n));',
            "switch (n) { case 1: n = 7; break; case 5: n = 2; }",
            "n += bpf_ktime_get_ns();",
        ]
        chosen = [random.choice(choices) for _ in range(random.randint(1, most))]
        chosen += [self.call(name) for name in self.callees if random.random() < 0.4]
        random.shuffle(chosen)
        return "\n\t".join(chosen)

    def call(self, name):
        if name.startswith("callback_"):
            return f"bpf_loop(3, {name}, &n, 0);"
        return f"n += {name}(ctx, n);"

    def function(self, number):
        random = self.random
        body = self.statements(5)
        callback = random.random() < 0.2
        name = f"{'callback' if callback else 'function'}_{number}"
        linkage = random.choice(("static ", "static ", "", "__weak ", "__hidden "))
        padding = random.choice(("", "", "", "__attribute__((aligned(64))) "))
        placed = f'APART("{random.choice((".part", ".unlikely.", ".hot"))}") ' * (self.apart and random.random() < 0.5)
        self.callees.append(name)
        if callback:
            body = f"long n = *given;\n\tvoid *ctx = given;\n\n\t{body}\n\treturn 0;"
            return f"static long {name}(__u32 index, long *given)\n{{\n\t{body}\n}}"
        tag = random.choice(("", "", ' __attribute__((btf_decl_tag("arg:ctx")))'))
        head = f"{linkage}__noinline {padding}{placed}long {name}(void *ctx{tag}, long n)"
        if random.random() < 0.1:
            body += f"\n\tif (n > 1000)\n\t\tn += {name}(ctx, n - 1);"
        return f"{head}\n{{\n\t{body}\n\treturn n;\n}}"

    def program(self, name):
        section = self.random.choice(self.sections)
        context = CONTEXTS[section]
        body = f"long n = (long)ctx;\n\n\t{self.statements(8)}\n\treturn n & 1;"
        return f'SEC("{section}") int {name}(struct {context} *ctx)\n{{\n\t{body}\n}}'

    def foreign(self, number):
        section = self.random.choice(FOREIGN)
        body = self.statements(4)
        return f'SEC("{section}") int foreign_{number}(void *ctx)\n{{\n\tlong n = 1;\n\n\t{body}\n\treturn n;\n}}'

    def tail(self):
        random = self.random
        if random.random() < 0.1:
            yield 'int _version SEC("version") = 0x50a00;'
        yield random.choice(
            (
                'char LICENSE[] SEC("license") = "GPL";',
                'char LICENSE[] SEC("license") = "Dual BSD/GPL";',
                'char LICENSE[20] SEC("license") = "Apache-2.0";',
                'const char LICENSE[3] SEC("license") = "GPL";',
                "",
            )
        )

    def named(self):
        """The programs to load: all of the family, or some."""
        return self.programs if self.random.random() < 0.5 else self.random.sample(self.programs, 1)

    def settings(self, then):
        """What a spec sets: nothing, or some variables and numbers of entries. Variables are known by their BTF."""
        several = self.random.random() < 0.5
        things = self.maps + (self.globals if then != "bare" else [])
        chosen = [one.setting(self.random) for one in things if several and self.random.random() < 0.6]
        return filter(None, chosen)

    def text(self):
        head = f"// programs: {' '.join(self.named())}\n// flags: {' '.join(self.flags)}\n"
        if self.apart or self.divided:
            head += "// twin: -DTWIN -fno-function-sections\n"
        then = self.random.choice(("strip", "strip", "link", "link", "bare", *[""] * 15))
        head += f"// then: {then}\n// settings: {' '.join(self.settings(then))}\n"
        return head + "\n".join(part.rstrip() + "\n" for part in self.parts if part)
