"""Types, global variables and maps."""

SCALARS = ["char", "signed char", "short", "__u16", "int", "__u32", "long", "__u64", "_Bool", "enum small", "count_t"]
FLAVOURLESS = """
enum small { SMALL_NONE, SMALL_ONE, SMALL_LAST = 9 };
enum negative { NEGATIVE_LESS = -3, NEGATIVE_MORE = 4 };
enum large { LARGE_NONE, LARGE_ALL = 0x1ffffffffULL };
typedef __u32 count_t;
typedef int (*function_t)(long, count_t);
"""


def array(random, least=1):
    return "".join(f"[{random.choice((1, 2, 3, 7, 16))}]" for _ in range(random.randint(least, 2)))


def member(random, number, types):
    """A member of a struct: a scalar, bit-field, array, pointer, earlier struct, or anonymous union."""
    name, scalar = f"m{number}", random.choice(SCALARS)
    return random.choice(
        (
            lambda: f"{scalar} {name};",
            lambda: f"{scalar} {name}{array(random)};",
            lambda: "unsigned int {0}_low : {1}, : 3, {0} : {2};".format(
                name, random.randint(1, 9), random.randint(1, 17)
            ),
            lambda: f"const volatile {scalar} *{name};",
            lambda: f"struct {random.choice(types)} {name};" if types else f"double {name};",
            lambda: f"struct {random.choice(types)} *{name};" if types else f"float {name};",
            lambda: f"union {{ {scalar} {name}; __u8 {name}_bytes[8]; }};",
            lambda: f"struct {{ {scalar} inner; }} {name}[2];",
            lambda: f"function_t {name};",
            lambda: f"enum {random.choice(('negative', 'large'))} {name};",
            lambda: f"struct undefined_{number} *{name};",
            lambda: f"double {name};",
            lambda: f'struct task_struct __attribute__((btf_type_tag("kptr"))) *{name};',
            lambda: f'int __attribute__((btf_type_tag("own"))) *{name} __attribute__((btf_decl_tag("member")));',
        )
    )()


def types(random):
    """Returns the source of some structs, and their names."""
    names, source = [], [FLAVOURLESS]
    for number in range(random.randint(1, 5)):
        members = [member(random, i, names) for i in range(random.randint(1, 6))]
        attribute = random.choice(("", "", "", " __attribute__((packed))", " __attribute__((aligned(32)))"))
        kind = "union" if number and not names and random.random() < 0.1 else "struct"
        source.append(f"{kind} s{number} {{\n\t" + "\n\t".join(members) + f"\n}}{attribute};")
        if kind == "struct":
            names.append(f"s{number}")
    return "\n".join(source), names


# By type: some values as specs have them, and their bytes.
VALUES = {
    "signed char": [("-3", "fd"), ("7", "07")],
    "short": [("-300", "d4fe"), ("515", "0302")],
    "__u16": [("65535", "ffff"), ("1", "0100")],
    "int": [("-2147483648", "00000080"), ("12", "0c000000")],
    "__u32": [("4294967295", "ffffffff"), ("0", "00000000")],
    "long": [("-1", "ff" * 8), ("1099511627776", "0000000000010000")],
    "__u64": [("81985529216486895", "efcdab8967452301")],
    "count_t": [("77", "4d000000")],
}


class Global:
    def __init__(self, random, number, structs):
        self.name, self.writable = f"g{number}", True
        struct = bool(structs) and random.random() < 0.4
        self.type = f"struct {random.choice(structs)}" if struct else random.choice(SCALARS)
        self.array = array(random) if random.random() < 0.3 else ""
        place = random.choice(("", "", "const volatile", "const volatile", ".data.own", ".bss.own", ".rodata.own"))
        value = self.initial(random, struct, place)
        section = f'SEC("{place}") ' if place.startswith(".") else ""
        constant = "const volatile" in place or ".rodata" in place
        self.writable = not constant
        words = "const volatile " if constant else random.choice(("", "volatile "))
        linkage = random.choice(("", "", "static ", "__hidden ", "__weak "))
        aligned = random.choice(("", "", "", " __attribute__((aligned(64)))"))
        tag = random.choice(("", "", "", ' __attribute__((btf_decl_tag("tagged")))'))
        self.source = f"{section}{linkage}{words}{self.type} {self.name}{self.array}{aligned}{tag}{value};"

    def initial(self, random, struct, place):
        if place == ".bss.own" or random.random() < 0.4:
            # clang puts only a variable with a value where its section says.
            return "" if place in ("", ".bss.own") else " = {}" if struct or self.array else " = 0"
        if struct:
            return " = {}"
        return f" = {'{' * bool(self.array)}{'{' * self.array.count('][')}{random.randint(1, 90)}" + (
            "}" * (self.array.count("["))
        )

    def setting(self, random):
        """A value that a spec gives the variable, and its bytes; none of what compilers may leave out."""
        if "static" in self.source.split(self.name)[0] or self.type not in VALUES or self.array.count("[") > 1:
            return None
        count = int(self.array[1:-1]) if self.array else 1
        chosen = [random.choice(VALUES[self.type]) for _ in range(count)]
        text = ",".join(value for value, _ in chosen)
        return f"global:{self.name}={f'[{text}]' if self.array else text}:{''.join(digits for _, digits in chosen)}"

    def uses(self, random):
        """Statements that use the variable."""
        one = f"*(volatile char *)&{self.name}"
        yield f"n += {one};"
        if self.writable:
            yield f"*(volatile char *)&{self.name} = n;"
            yield f"bpf_probe_read_kernel((void *)&{self.name}, sizeof({self.name}), ctx);"
            yield f"((volatile char *)&{self.name})[sizeof({self.name}) - 1] = n;"
        else:
            yield f"n += ((volatile char *)&{self.name})[n & {random.choice((0, 1, 3))}];"


# By type: how its key and value are declared; {} in a value is a struct or scalar.
MAPS = {
    "HASH": ("key", "value"),
    "ARRAY": ("int", "value"),
    "PERCPU_HASH": ("key", "value"),
    "PERCPU_ARRAY": ("int", "value"),
    "LRU_HASH": ("key", "value"),
    "LRU_PERCPU_HASH": ("key", "value"),
    "PERF_EVENT_ARRAY": ("sizes", "sizes"),
    "CGROUP_ARRAY": ("int", "int"),
    "STACK_TRACE": ("sizes", "stack"),
    "LPM_TRIE": ("trie", "value"),
    "DEVMAP": ("int", "int"),
    "DEVMAP_HASH": ("int", "int"),
    "SOCKMAP": ("int", "int"),
    "SOCKHASH": ("key", "int"),
    "CPUMAP": ("int", "int"),
    "XSKMAP": ("int", "int"),
    "REUSEPORT_SOCKARRAY": ("int", "long"),
    "QUEUE": (None, "value"),
    "STACK": (None, "value"),
    "RINGBUF": (None, None),
    "USER_RINGBUF": (None, None),
    "BLOOM_FILTER": (None, "value"),
    "SK_STORAGE": ("storage", "value"),
    "TASK_STORAGE": ("storage", "value"),
    "INODE_STORAGE": ("storage", "value"),
    "CGROUP_STORAGE": ("cgroup", "value"),
    "PERCPU_CGROUP_STORAGE": ("cgroup", "value"),
    "PROG_ARRAY": ("sizes", "sizes"),
}
FIXED = {
    "storage": ("int", ["__uint(map_flags, 1)"]),
    "trie": ("struct { __u32 prefixlen; __u32 address; }", ["__uint(map_flags, 1)"]),
    "cgroup": ("struct bpf_cgroup_storage_key", []),
    "int": ("__u32", []),
    "long": ("__u64", []),
}
NO_ENTRIES = ("SK_STORAGE", "TASK_STORAGE", "INODE_STORAGE", "CGROUP_STORAGE", "PERCPU_CGROUP_STORAGE")


def side(random, word, how, structs):
    """Declares the key or value of a map."""
    if how is None:
        return []
    if how in FIXED:
        declared, more = FIXED[how]
        return [f"__type({word}, {declared})", *more]
    if how == "stack":
        return ["__uint(value_size, 8 * 16)"]
    if how == "sizes" or random.random() < 0.15:
        return [f"__uint({word}_size, {4 if how == 'sizes' else random.choice((4, 8, 24))})"]
    choices = [
        "int",
        "__u64",
        "count_t",
        "enum small",
        "char",
        "_Bool",
        "struct { int a; char b[5]; }",
        "union { int a; long b; }",
    ]
    choices += [f"struct {name}" for name in structs] * 2
    return [f"__type({word}, {random.choice(choices)})"]


class Map:
    def __init__(self, random, number, structs, kind=None, section='SEC(".maps")'):
        self.name, self.kind = f"map{number}", kind or random.choice(list(MAPS))
        key, value = MAPS[self.kind]
        lines = side(random, "key", key, structs) + side(random, "value", value, structs)
        lines.insert(random.randint(0, len(lines)), f"__uint(type, BPF_MAP_TYPE_{self.kind})")
        lines += self.options(random)
        random.shuffle(lines)
        # A definition has each field once.
        lines = {line.partition(",")[0]: line for line in lines}.values()
        self.fields = ";\n\t".join(lines)
        weak = "" if section else random.choice(("", "__hidden "))
        self.source = f"struct {{\n\t{self.fields};\n}} {weak}{self.name} {section};"

    def options(self, random):
        lines = []
        if "RINGBUF" in self.kind:
            lines.append(f"__uint(max_entries, {random.choice((4096, 5000, 1, 1 << 18))})")
        elif self.kind not in NO_ENTRIES and (self.kind != "PERF_EVENT_ARRAY" or random.random() < 0.5):
            lines.append(f"__uint(max_entries, {random.choice((1, 4, 1000))})")
        if self.kind in ("HASH", "ARRAY") and random.random() < 0.3:
            lines.append(f"__uint(map_flags, {random.choice(('BPF_F_RDONLY_PROG', 'BPF_F_NUMA_NODE', '1 << 20', 0))})")
        if self.kind == "ARRAY" and random.random() < 0.1:
            lines.append("__uint(map_flags, BPF_F_MMAPABLE)")
        if self.kind == "BLOOM_FILTER":
            # libbpf's __ulong can be used only once in a file.
            ulong = "__ulong" if self.name == "map0" else "__uint"
            lines.append(random.choice(("__uint(map_extra, 3)", f"{ulong}(map_extra, 5)", "__uint(map_extra, 0)")))
        if random.random() < 0.1:
            lines.append("__uint(numa_node, 1)")
        if random.random() < 0.1:
            lines.append("__uint(pinning, LIBBPF_PIN_BY_NAME)")
        return lines

    def setting(self, random):
        """A number of entries that a spec gives the map; none if maps of its kind have none."""
        return None if self.kind in NO_ENTRIES else f"entries:{self.name}={random.choice((1, 3, 77, 5000))}"

    def uses(self, random):
        yield f"{{ __u64 key[2] = {{n}}; char *v = bpf_map_lookup_elem(&{self.name}, key); n += v ? *v : 0; }}"
        yield f"{{ __u64 key[2] = {{}}, value[2] = {{n}}; n += bpf_map_update_elem(&{self.name}, key, value, 0); }}"
        yield f"{{ __u64 key[2] = {{}}; bpf_map_delete_elem(&{self.name}, key); }}"
        if self.kind == "PROG_ARRAY":
            yield f"bpf_tail_call(ctx, &{self.name}, {random.randint(0, 3)});"
            yield f"bpf_tail_call_static(ctx, &{self.name}, 2);"
            yield f"bpf_tail_call(ctx, &{self.name}, n);"


class Outer(Map):
    """A map of maps, or a program array with programs in it."""

    def __init__(self, random, number, structs, maps, programs):
        self.name, self.kind = f"map{number}", random.choice(("ARRAY_OF_MAPS", "HASH_OF_MAPS", "PROG_ARRAY"))
        # clang forgets most structs that only such a definition uses, and libbpf then refuses the object.
        structs = structs if random.random() < 0.2 else []
        inner = Map(random, f"{number}_inner", structs, random.choice(("ARRAY", "HASH", "RINGBUF", "SK_STORAGE")), "")
        lines = [f"__uint(type, BPF_MAP_TYPE_{self.kind})", "__uint(max_entries, 4)"]
        lines.append(random.choice(("__type(key, int)", "__uint(key_size, 4)")))
        lines += ["__type(value, int)"] * random.choice((0, 1))
        if self.kind == "PROG_ARRAY":
            lines.append("__array(values, int (void *))")
            values = [f"(void *)&{name}" for name in programs]
        else:
            fields = [line for line in inner.fields.split(";\n\t") if "pinning" not in line]
            lines.append("__array(values, struct {\n\t\t" + ";\n\t\t".join(fields) + ";\n\t})")
            values = [f"(void *)&{one.name}" for one in maps]
        chosen = [f"[{slot}] = {random.choice(values)}" for slot in range(4) if values and random.random() < 0.5]
        initial = f" = {{ .values = {{ {', '.join(chosen)} }} }}" if chosen else ""
        self.source = "struct {\n\t" + ";\n\t".join(lines) + f';\n}} {self.name} SEC(".maps"){initial};'
