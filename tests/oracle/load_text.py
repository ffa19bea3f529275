"""Reads the text of a load (README.md), and makes of it lines that can be compared one by one.

Each line names the map or program that it belongs to. BTF is decoded, and what refers to it says what it refers to.
"""

import struct

KINDS = (
    "void int ptr array struct union enum fwd typedef volatile const restrict func proto var datasec float decl_tag "
    "type_tag enum64"
).split()
# By kind: the words that follow a type, as a format of struct, for each of its `vlen` members, or once if marked so.
MEMBERS = {"struct": "III", "union": "III", "enum": "Ii", "proto": "II", "datasec": "III", "enum64": "III"}
ONCE = {"int": "I", "array": "III", "var": "I", "decl_tag": "i"}
# The columns of these that are offsets of strings.
NAMES = {"struct": (0,), "union": (0,), "enum": (0,), "proto": (0,), "enum64": (0,)}


class Btf:
    """The types and strings of BTF."""

    def __init__(self, data):
        order = "<" if data[:2] == b"\x9f\xeb" else ">"
        magic, _, _, length, types, types_length, strings, strings_length = struct.unpack_from(order + "HBBIIIII", data)
        if magic != 0xEB9F:
            raise ValueError("no BTF")
        self.order = order
        self.strings = data[length + strings : length + strings + strings_length]
        self.lines = list(self.types(data[length + types : length + types + types_length]))

    def string(self, offset):
        return self.strings[offset : self.strings.index(b"\0", offset)].decode("utf-8", "backslashreplace")

    def types(self, data):
        at = number = 0
        while at < len(data):
            number += 1
            name, info, size = struct.unpack_from(self.order + "III", data, at)
            at += 12
            kind, flag, count = KINDS[info >> 24 & 31], info >> 31, info & 0xFFFF
            words = [str(number), kind, self.string(name) or "-", str(size)] + ["flag"] * flag
            words += [f"reserved:{info & 0x60FF0000:x}"] * bool(info & 0x60FF0000)
            shape = MEMBERS.get(kind)
            layout = struct.Struct(self.order + (shape or ONCE.get(kind, "")))
            # The length of a fwd or func is its linkage.
            if not shape:
                words.append(str(count))
            for _ in range(count if shape else 1):
                values = layout.unpack_from(data, at)
                at += layout.size
                words += [self.string(v) or "-" if i in NAMES.get(kind, ()) else str(v) for i, v in enumerate(values)]
            yield " ".join(words)

    def type(self, number):
        return self.lines[number - 1] if 0 < number <= len(self.lines) else f"{number} void"


class Load:
    """The text of one load: why it was refused, or lines by what they belong to."""

    def __init__(self, text):
        self.refused = None
        # By (kind, name), in the text's order.
        self.things = {}
        btf, lines = None, None
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            if line.startswith("  "):
                lines.append(line[2:])
            elif kind == "refused":
                self.refused = rest
            elif kind == "btf":
                btf = Btf(bytes.fromhex(rest))
            elif kind in ("map", "prog"):
                if (kind, rest) in self.things:
                    raise ValueError(f"twice: {line}")
                lines = self.things[kind, rest] = []
            elif line and kind != "#":
                raise ValueError(f"no line of a load: {line}")
        for (kind, name), lines in self.things.items():
            lines[:] = self.told(kind, name, lines, btf)
        if btf:
            self.things["btf", ""] = btf.lines

    @staticmethod
    def told(kind, name, lines, btf):
        """Fields in the order of their names, then what has an order of its own."""
        ordered = ("insn", "func", "line", "data", "slot")
        fields = sorted(line for line in lines if line.partition(" ")[0] not in ordered)
        for line in fields + [line for line in lines if line.partition(" ")[0] in ordered]:
            word, _, rest = line.partition(" ")
            if word == "name" and kind == "map" and name in (".rodata", ".data", ".bss", ".kconfig"):
                # libbpf begins it with the object's name, which sockeye does not have.
                line = "name ..." + rest[rest.index(".") :]
            elif word == "func" and btf:
                insn, number = rest.split()
                line = f"func {insn} {btf.type(int(number))}"
            elif word == "line" and btf:
                insn, file, source, column = map(int, rest.split())
                line = f"line {insn} {btf.string(file)}:{column >> 10}:{column & 1023} {btf.string(source).strip()}"
            yield line

    def used(self):
        """The maps that programs refer to, and those that are put into them."""
        found, new = set(), [lines for (kind, _), lines in self.things.items() if kind == "prog"]
        while new:
            for line in new.pop():
                words = line.split(" ")
                name = None
                if words[0] == "insn" and words[-1].startswith("map:"):
                    name = words[-1][4:]
                elif words[0] == "slot" and words[2] == "map":
                    name = words[3]
                if name and name not in found:
                    found.add(name)
                    new.append(self.things["map", name])
        return found


def differences(libbpf, sockeye):
    """Yields the lines that only one of two loads has, as "- LINE" (libbpf) and "+ LINE" (sockeye)."""
    if libbpf.refused and sockeye.refused:
        return
    for sign, load in (("-", libbpf), ("+", sockeye)):
        if load.refused:
            yield f"{sign} refused {load.refused}"
    if libbpf.refused or sockeye.refused:
        return
    used = libbpf.used()
    for thing in dict.fromkeys([*libbpf.things, *sockeye.things]):
        # libbpf makes all maps of an object.
        if thing[0] == "map" and thing not in sockeye.things and thing[1] not in used:
            continue
        name = " ".join(filter(None, thing))
        ours, theirs = sockeye.things.get(thing), libbpf.things.get(thing)
        if ours is None or theirs is None:
            yield f"{'-' if ours is None else '+'} {name}"
            continue
        yield from lines_of_one(name, theirs, ours)


def lines_of_one(name, theirs, ours):
    import difflib

    if theirs == ours:
        return
    for line in difflib.unified_diff(theirs, ours, n=0, lineterm=""):
        if line[0] in "+-" and line[:3] not in ("+++", "---"):
            yield f"{line[0]} {name}: {line[1:]}"
