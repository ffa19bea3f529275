"""Types of the kernel as a program sees them: relocations, kernel functions and variables, and its configuration."""

from .data import array

# Some structs of kernels 5.10 to 7.2, with members as they are declared there.
KERNEL = {
    "task_struct": [
        "int pid",
        "int tgid",
        "unsigned int flags",
        "char comm[16]",
        "struct task_struct *real_parent",
        "void *stack",
        "unsigned long long start_time",
        "struct nsproxy *nsproxy",
        "unsigned in_execve : 1",
        "unsigned sched_reset_on_fork : 1",
        "int prio",
        "struct css_set *cgroups",
    ],
    "sock": [
        "unsigned short sk_type",
        "unsigned short sk_protocol",
        "int sk_rcvbuf",
        "unsigned int sk_mark",
        "unsigned char sk_userlocks : 4",
        "unsigned char sk_no_check_tx : 1",
        "unsigned long sk_flags",
        "int sk_err",
    ],
    "sock_common": [
        "unsigned short skc_family",
        "volatile unsigned char skc_state",
        "unsigned char skc_reuse : 4",
        "unsigned char skc_ipv6only : 1",
        "unsigned int skc_daddr",
        "unsigned short skc_num",
        "unsigned short skc_dport",
    ],
    "sk_buff": [
        "unsigned int len",
        "unsigned int data_len",
        "unsigned char pkt_type : 3",
        "unsigned char ip_summed : 2",
        "unsigned short protocol",
        "char cb[48]",
        "unsigned char *head",
        "unsigned int mark",
        "unsigned short mac_header",
    ],
    "tcp_sock": ["unsigned int snd_cwnd", "unsigned int srtt_us", "unsigned int rcv_nxt", "unsigned short advmss"],
    "cgroup": ["int level", "unsigned long flags", "struct kernfs_node *kn", "int max_depth"],
    "kernfs_node": ["const char *name", "unsigned long long id", "unsigned short mode"],
    "file": ["unsigned int f_flags", "void *private_data", "long long f_pos"],
    "list_head": ["struct list_head *next", "struct list_head *prev"],
    "timespec64": ["long long tv_sec", "long tv_nsec"],
    "in6_addr": ["union { unsigned char u6_addr8[16]; unsigned int u6_addr32[4]; } in6_u"],
    "not_in_any_kernel": ["int a", "long b"],
}
ENUMS = {
    "bpf_map_type": ["BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_RINGBUF", "BPF_MAP_TYPE_ARENA"],
    "bpf_func_id": ["BPF_FUNC_map_lookup_elem", "BPF_FUNC_loop"],
    "pid_type": ["PIDTYPE_PID", "PIDTYPE_MAX"],
    "not_in_any_kernel": ["SOMETHING"],
}
TYPEDEFS = {"pid_t": "int", "gfp_t": "unsigned int", "sector_t": "unsigned long long", "not_in_any_kernel_t": "int"}
OTHER_TYPES = ["char", "short", "int", "long", "unsigned char", "unsigned int", "void *", "unsigned long long"]


class Flavour:
    """A struct of the kernel with some of its members, and some that differ or never were."""

    def __init__(self, random, number):
        self.number = number
        self.kernel = random.choice(list(KERNEL))
        self.name = f"{self.kernel}___f{number}" if random.random() < 0.8 else self.kernel
        declared = random.sample(KERNEL[self.kernel], random.randint(1, min(4, len(KERNEL[self.kernel]))))
        self.members = [self.declared(random, one) for one in declared]
        if random.random() < 0.4:
            self.members.insert(0, random.choice(("int never_was", "char never_was[3]", "struct { int x; } never_was")))
        random.shuffle(self.members)
        self.source = (
            f"struct {self.name} {{\n\t" + ";\n\t".join(self.members) + ";\n} __attribute__((preserve_access_index));"
        )

    def declared(self, random, member):
        """The member, or one of its name and another type."""
        name = self.member_name(member)
        if random.random() > 0.25 or "{" in member:
            return member
        other = random.choice(OTHER_TYPES)
        return random.choice(
            (f"{other} {name}", f"{other} {name}{array(random)}", f"struct {{ int x; }} {name}", f"unsigned {name} : 3")
        )

    @staticmethod
    def member_name(member):
        words = member.rsplit("}", 1)[-1].partition(":")[0].partition("[")[0]
        return words.split()[-1].lstrip("*")

    def uses(self, random):
        struct, pointer = f"struct {self.name}", f"((struct {self.name} *)ctx)"
        yield f"n += bpf_core_type_exists({struct});"
        yield f"n += bpf_core_type_size({struct});"
        yield f"n += bpf_core_type_id_kernel({struct});"
        yield f"n += bpf_core_type_id_local({struct});"
        yield f"n += bpf_core_type_matches({struct});"
        for member in self.members:
            name = self.member_name(member)
            yield from self.of_member(random, struct, pointer, member, name)

    def of_member(self, random, struct, pointer, member, name):
        yield f"n += bpf_core_field_exists({struct}, {name});"
        if ":" in member.rsplit("}", 1)[-1]:
            yield f"n += BPF_CORE_READ_BITFIELD({pointer}, {name});"
            yield f"n += BPF_CORE_READ_BITFIELD_PROBED({pointer}, {name});"
            yield f"BPF_CORE_WRITE_BITFIELD({pointer}, {name}, n);"
            return
        yield f"n += bpf_core_field_size({struct}, {name});"
        yield f"n += bpf_core_field_offset({struct}, {name});"
        yield f"bpf_core_read(&n, sizeof(n), &{pointer}->{name});"
        yield f"n += *(volatile char *)&{pointer}->{name};"
        if not any(c in member for c in "{[*"):
            yield f"n += {pointer}->{name};"
            yield f"{pointer}->{name} = n;"
            yield f"{pointer}->{name} = {random.choice((0, 7))};"
            yield f"n += {pointer}[{random.randint(0, 2)}].{name};"
        elif member.endswith("]") and "{" not in member:
            yield f"n += (long){pointer}->{name}[0]{'[0]' * (member.count('[') - 1)};"


class Names:
    """An enum or a typedef of the kernel."""

    def __init__(self, random, number):
        self.enum = random.random() < 0.6
        if not self.enum:
            self.type = random.choice(list(TYPEDEFS))
            flavour = f"{self.type}___f{number}"
            self.source = f"typedef {random.choice((TYPEDEFS[self.type], 'struct { int x; }'))} {flavour};"
            self.name = flavour
            return
        self.type = random.choice(list(ENUMS))
        self.name = f"enum {self.type}___f{number}"
        self.values = [f"{value}___f{number}" for value in ENUMS[self.type]] + [f"NEVER_WAS___f{number}"]
        large = random.choice(("", "", " = 0x7fffffffffULL"))
        self.source = f"{self.name} {{ {', '.join(self.values)}{large} }};"

    def uses(self, random):
        yield f"n += bpf_core_type_exists({self.name});"
        yield f"n += bpf_core_type_size({self.name});"
        yield f"n += bpf_core_type_matches({self.name});"
        yield f"n += bpf_core_type_id_kernel({self.name});"
        for value in self.values if self.enum else ():
            yield f"n += bpf_core_enum_value_exists({self.name}, {value});"
            yield f"n += bpf_core_enum_value({self.name}, {value});"


# What a use of an extern looks like: its declaration and the statement.
EXTERNS = [
    ("extern int LINUX_KERNEL_VERSION __kconfig;", "n += LINUX_KERNEL_VERSION;"),
    ("extern _Bool LINUX_HAS_BPF_COOKIE __kconfig __weak;", "n += LINUX_HAS_BPF_COOKIE;"),
    ("extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig __weak;", "n += LINUX_HAS_SYSCALL_WRAPPER;"),
    ("extern int LINUX_NEVER_WAS __kconfig __weak;", "n += LINUX_NEVER_WAS;"),
    ("extern unsigned long CONFIG_HZ __kconfig;", "n += CONFIG_HZ;"),
    ("extern short CONFIG_NR_CPUS __kconfig;", "n += CONFIG_NR_CPUS;"),
    ("extern _Bool CONFIG_BPF_SYSCALL __kconfig;", "n += CONFIG_BPF_SYSCALL;"),
    ("extern char CONFIG_CGROUP_BPF __kconfig;", "n += CONFIG_CGROUP_BPF;"),
    ("extern enum libbpf_tristate CONFIG_NET_CLS_BPF __kconfig;", "n += CONFIG_NET_CLS_BPF == TRI_MODULE;"),
    ("extern char CONFIG_LSM[20] __kconfig __weak;", "n += CONFIG_LSM[n & 7];"),
    ("extern const char CONFIG_DEFAULT_INIT[8] __kconfig __weak;", "n += CONFIG_DEFAULT_INIT[0];"),
    ("extern unsigned long CONFIG_PHYSICAL_START __kconfig;", "n += CONFIG_PHYSICAL_START;"),
    ("extern int CONFIG_NEVER_WAS __kconfig __weak;", "n += CONFIG_NEVER_WAS;"),
    ("extern const void jiffies __ksym;", "n += (long)&jiffies;"),
    ("extern const void never_was_symbol __ksym __weak;", "n += &never_was_symbol ? 1 : 2;"),
    ("extern const void local_counter __ksym __weak;", "n += (long)&local_counter;"),
    ("struct rq { int cpu; };\nextern const struct rq runqueues __ksym;", "n += (long)bpf_this_cpu_ptr(&runqueues);"),
    ("extern const int bpf_prog_active __ksym __weak;", "n += (long)&bpf_prog_active;"),
    ("extern const int never_was_variable __ksym __weak;", "n += &never_was_variable ? 3 : 4;"),
    ("extern void bpf_rcu_read_lock(void) __ksym __weak;", "if (bpf_rcu_read_lock) bpf_rcu_read_lock();"),
    (
        "extern void bpf_rcu_read_unlock___own(void) __ksym __weak;",
        "if (bpf_rcu_read_unlock___own) bpf_rcu_read_unlock___own();",
    ),
    ("extern int never_was_function(long x) __ksym __weak;", "if (never_was_function) n += never_was_function(n);"),
    (
        "extern int bpf_dynptr_size(int a, int b, int c) __ksym __weak;",
        "if (bpf_dynptr_size) n += bpf_dynptr_size(n, 1, 2);",
    ),
    # Strong, and only in newer kernels: refused on others.
    ("extern void *bpf_cast_to_kern_ctx(void *obj) __ksym;", "n += (long)bpf_cast_to_kern_ctx(ctx);"),
]
