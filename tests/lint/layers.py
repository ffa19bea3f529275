#!/usr/bin/env python3
"""Checks the layout of the crates: no import cycle between files, and no import upwards between the rooms of the agent.

    tests/lint/layers.py              prints each violation, and fails if there is one
    tests/lint/layers.py --self-test  checks a small made-up crate whose violations are known

A file imports another one of its crate if it names an item that the other one defines, in a `use` or in a path. Names are
followed through re-exports to the file that defines them. `mod x;` is no import, and neither is a `pub use` of a child's item
that the parent does not use itself. Comments, strings and `#[cfg(test)]` code do not count.
"""

import re
import sys
import tempfile
from collections import deque
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent

CRATES = [
    "crds", "crds/cli", "crds/client", "crds/image", "crds/metrics", "crds/provenance", "crds/read-api", "crds/registry",
    "crds/signature", "ebpf", "operator", "agent",
]

# The rooms of a crate, lowest floor first. A room imports rooms below it.
FLOORS = {
    "agent": [
        {"model"},
        {"kernel", "plan"},
        {"node"},
        {"control", "streams"},
        {"admission", "cluster", "standalone", "commands", "read_api", "metrics"},
        {"main", "lib"},
    ],
    "crds/cli": [
        {"output"},
        {"source", "view"},
        {"commands"},
        {"main", "lib"},
    ],
}
# Rooms of one floor that may import each other, without a cycle.
NEIGHBOURS = {"admission", "cluster", "standalone", "commands", "read_api", "metrics"}

# Comments, strings and characters, but for the strings that serde reads as paths.
NO_CODE = re.compile(
    r'\b(?:with|default|\w+_if|\w+_with)\s*=\s*"crate::[\w:]+"|'
    r'(?P<drop>//[^\n]*|/\*.*?\*/|\bb?r(#*)".*?"\2|"(?:\\.|[^"\\])*"|\'(?:\\[^\']+|[^\\\'\n])\')', re.S)
TESTS_FILE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?mod\s+(\w+)\s*;")
USE = re.compile(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:$])[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)+")
ITEM = re.compile(r"\b(?:fn|struct|enum|trait|type|const|static|union)\s+(\w+)")
MODULE = re.compile(r"\bmod\s+(\w+)\s*\{")


def blank(text, start, end):
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def end_of_item(text, start):
    """Returns where the item that begins at `start` ends: after its semicolon or its braces."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "{([":
            depth += 1
        elif text[at] in "})]":
            depth -= 1
            if depth == 0 and text[at] == "}":
                return at + 1
        elif text[at] == ";" and depth == 0:
            return at + 1
    return len(text)


def code_of(text):
    """Blanks comments, strings and tests out of a file's text. Also returns the test modules that have files of their own."""
    text = NO_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]) if m["drop"] else m[0], text)
    tests = TESTS_FILE.findall(text)
    while (found := re.search(r"#\[cfg\(test\)\]", text)):
        start = found.end()
        while (attribute := re.compile(r"\s*#\[[^\]]*\]").match(text, start)):
            start = attribute.end()
        text = blank(text, found.start(), end_of_item(text, start))
    return text, tests


def leaves(tree, prefix=()):
    """Yields the imports of a `use` tree as (path, name); a glob's name is `*`."""
    tree = tree.strip()
    if "{" in tree:
        head, rest = tree.split("{", 1)
        prefix += tuple(part for part in re.split(r"\s*::\s*", head.strip()) if part)
        depth, part = 0, ""
        for char in rest.rstrip()[:-1] + ",":
            depth += (char == "{") - (char == "}")
            if char == "," and depth == 0:
                if part.strip():
                    yield from leaves(part, prefix)
                part = ""
            else:
                part += char
        return
    path, _, alias = (part.strip() for part in tree.partition(" as "))
    path = prefix + tuple(re.split(r"\s*::\s*", path))
    if path[-1] == "self":
        path = path[:-1]
    yield path, alias or path[-1]


class Crate:
    """The modules of one crate. A module is a tuple of names; the root is the empty tuple."""

    def __init__(self, src):
        self.text, self.file, self.items = {}, {}, {}
        self.uses, self.bindings, self.globs = {}, {}, {}
        tests = set()
        for path in sorted(src.rglob("*.rs")):
            parts = path.relative_to(src).with_suffix("").parts
            if parts[0] == "bin" or parts == ("main",) and (src / "lib.rs").exists():
                continue  # a crate of its own, which imports this one by its name
            module = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
            text, names = code_of(path.read_text())
            tests.update(module + (name,) for name in names)
            self.text[module], self.file[module] = text, path
        for module in [m for m in self.text if any(m[:n] in tests for n in range(1, len(m) + 1))]:
            del self.text[module]
        for module in list(self.text):
            self.read(module, self.text[module], self.text[module], module)

    def read(self, module, text, whole, owner):
        """Reads a module's items and imports, and its inline modules. `whole` is the file's text, for line numbers."""
        self.file[module] = self.file[owner]
        while (inner := MODULE.search(text)):
            end = end_of_item(text, inner.start())
            self.read(module + (inner[1],), blank(blank(text, 0, inner.end()), end - 1, len(text)), whole, owner)
            text = blank(text, inner.start(), end)
        self.items[module] = set(ITEM.findall(text))
        self.uses[module], self.bindings[module], self.globs[module] = [], {}, []
        for use in list(USE.finditer(text)):
            line = whole.count("\n", 0, use.start(2)) + 1
            for path, name in leaves(use[2]):
                at = line + use[2][: use[2].find(path[-1])].count("\n")
                self.uses[module].append((path, name, at, bool(use[1])))
                if name == "*":
                    self.globs[module].append(path[:-1])
                else:
                    self.bindings[module][name] = path
            text = blank(text, use.start(), use.end())
        self.text[module] = text

    def resolve(self, module, path, seen=frozenset()):
        """Returns (module, is_module) for a path in `module`: the module that it names, or the one that defines its item.
        None stands for paths to other crates."""
        head, rest = path[0], path
        if head == "crate":
            module, rest = (), path[1:]
        elif head in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                module, rest = (module[:-1] if rest[0] == "super" else module), rest[1:]
        elif not (module + (head,) in self.items or head in self.bindings[module]):
            return None
        for at, name in enumerate(rest):
            if module + (name,) in self.items:
                module += (name,)
                continue
            if name in self.items.get(module, ()) or (module, name) in seen:
                return module, False
            seen |= {(module, name)}
            ways = [self.bindings[module][name]] if name in self.bindings[module] else [
                path + (name,) for path in self.globs[module]]
            for way in ways:
                found = self.resolve(module, way, seen)
                if found and found[1]:
                    return self.resolve(found[0], ("self",) + tuple(rest[at + 1:]), seen)
                if found and (name in self.bindings[module] or name in self.items[found[0]]):
                    return found
            return (module, False) if at or head in ("crate", "self", "super") else None
        return module, True

    def imports(self):
        """Returns the imports between files: {(importer, imported): line}, both as modules."""
        found = {}

        def add(module, target, line):
            pair = self.owner(module), self.owner(target)
            if pair[0] != pair[1]:
                found[pair] = min(line, found.get(pair, line))

        for module, uses in self.uses.items():
            words = set(re.findall(r"\w+", self.text[module]))
            for path, name, line, public in uses:
                target = self.resolve(module, path if name != "*" else path[:-1])
                if target is None or target[1] and name != "*":
                    continue  # of another crate; or a module, whose items the paths below name
                below = target[0][: len(module)] == module
                used = words & (self.items[target[0]] if name == "*" else {name})
                if not (public and below) or used:
                    add(module, target[0], line)
            for path in PATH.finditer(self.text[module]):
                target = self.resolve(module, tuple(re.split(r"\s*::\s*", path[0])))
                if target:
                    add(module, target[0], self.text[module].count("\n", 0, path.start()) + 1)
        return found

    def owner(self, module):
        """Returns the outermost module in the file of `module`."""
        while module and self.file.get(module[:-1]) == self.file[module]:
            module = module[:-1]
        return module


def name_of(module):
    return "/".join(module) or "lib"


def room_of(module):
    return module[0] if module else "lib"


def shortest(graph, start, end):
    """Returns the shortest path between two nodes, both included, or None."""
    before, queue = {start: None}, deque([start])
    while queue:
        node = queue.popleft()
        if node == end:
            nodes = [node]
            while (node := before[node]) is not None:
                nodes.append(node)
            return nodes[::-1]
        for target in sorted(graph.get(node, ())):
            if target not in before:
                before[target] = node
                queue.append(target)
    return None


def cycles(imports, name):
    """Yields imports as (pair, the cycle in words) until every import that is part of a cycle was in one of them."""
    graph, shown = {}, set()
    for importer, imported in imports:
        graph.setdefault(importer, set()).add(imported)
    for pair in sorted(imports):
        back = shortest(graph, pair[1], pair[0])
        if back and pair not in shown:
            shown.update(zip([pair[0]] + back, back))
            yield pair, " -> ".join(map(name, [pair[0]] + back))


def violations(src, floors):
    crate = Crate(src)
    imports = crate.imports()
    found = []

    def say(module, line, words):
        found.append((str(crate.file[module]), line, words))

    for (importer, imported), cycle in cycles(imports, name_of):
        say(importer, imports[importer, imported], f"{name_of(importer)} imports {name_of(imported)} in a cycle: {cycle}")
    if not floors:
        return sorted(found)
    floor = {room: at for at, rooms in enumerate(floors) for room in rooms}
    for module in crate.text:
        if crate.owner(module) == module and room_of(module) not in floor:
            say(module, 1, f"{name_of(module)} is in no room that the floors name")
    beside = {}
    for (importer, imported), line in sorted(imports.items()):
        rooms = room_of(importer), room_of(imported)
        if rooms[0] == rooms[1] or not floor.keys() >= set(rooms):
            continue
        words = f"{name_of(importer)} imports {name_of(imported)}, which lies"
        if floor[rooms[0]] < floor[rooms[1]]:
            say(importer, line, f"{words} above")
        elif floor[rooms[0]] == floor[rooms[1]]:
            if not NEIGHBOURS >= set(rooms):
                say(importer, line, f"{words} beside it")
            beside.setdefault(rooms, (importer, line))
    for rooms, cycle in cycles(beside, str):
        importer, line = beside[rooms]
        say(importer, line, f"room {rooms[0]} imports room {rooms[1]} in a cycle: {cycle}")
    return sorted(found)


def self_test():
    """Finds each kind of violation in a made-up crate, and nothing in what only looks like one."""
    files = {
        "lib.rs": "pub mod model; pub mod kernel; pub mod plan; pub mod node; pub mod control; pub mod cluster;\n"
                  "pub mod admission; pub mod astray;\npub use plan::Step;\n",
        "model/mod.rs": "pub mod desired; pub mod pods;\npub use desired::Desired;\n#[cfg(test)] mod tests;\n",
        # No imports: doc links, comments, strings, tests.
        "model/desired.rs": "//! [`x`](crate::control::x)\nuse super::pods::Pod;\npub struct Desired(Pod);\n"
                            "const S: &str = \"crate::control::x\";\n#[cfg(test)]\nmod t { use crate::control::Agent; }\n",
        "model/pods.rs": "pub struct Pod;\n// crate::node::up\nfn f() -> char { let _: &'static str; '\"' }\n"
                         "fn g() { crate::node::up() }\n",
        "model/tests.rs": "use crate::node::up;\n",
        "kernel/mod.rs": "mod bpf;\npub use bpf::load;\npub struct Fd;\n",
        # No cycle: the parent re-exports the child's item and does not use it.
        "kernel/bpf.rs": "use super::Fd;\npub fn load() -> Fd { Fd }\n",
        "plan/mod.rs": "mod attach;\nuse attach::attach;\nuse crate::{\n    kernel::{\n        self,\n        Fd,\n    },\n"
                       "};\npub enum Step { A }\nfn f(_: Fd) { attach(); kernel::load(); }\n",
        # A cycle: the parent uses the child's item, and the child the parent's.
        "plan/attach.rs": "use super::Step;\npub fn attach() -> Step { Step::A }\n",
        "node.rs": "use crate::plan;\npub fn up() { let _ = plan::Step::A; }\nmod inner { fn f() { super::up(); } }\n",
        "control.rs": "pub struct Agent;\n#[serde(with = \"crate::cluster::x\")]\nstruct S;\n",
        "cluster.rs": "pub mod x {}\npub use crate::Step;\npub fn list() { crate::admission::gate(); }\n",
        "admission/mod.rs": "pub mod session;\npub fn gate() {}\n",
        "admission/session.rs": "use crate::cluster::{list as all, Step};\nfn f(_: Step) { all(); }\n",
        "astray.rs": "",
    }
    expected = [
        ("admission/session.rs", 1, "room admission imports room cluster in a cycle: admission -> cluster -> admission"),
        ("astray.rs", 1, "astray is in no room that the floors name"),
        ("control.rs", 2, "control imports cluster, which lies above"),
        ("model/pods.rs", 4, "model/pods imports node, which lies above"),
        ("plan/mod.rs", 2, "plan imports plan/attach in a cycle: plan -> plan/attach -> plan"),
        ("plan/mod.rs", 6, "plan imports kernel, which lies beside it"),
        ("plan/mod.rs", 10, "plan imports kernel/bpf, which lies beside it"),
    ]
    with tempfile.TemporaryDirectory() as directory:
        src = Path(directory)
        for name, text in files.items():
            (src / name).parent.mkdir(exist_ok=True)
            (src / name).write_text(text)
        found = [(str(Path(file).relative_to(src)), line, words) for file, line, words in violations(src, FLOORS["agent"])]
    for what, those in (("not found", set(expected) - set(found)), ("found by mistake", set(found) - set(expected))):
        for file, line, words in sorted(those):
            print(f"{what}: {file}:{line}: {words}")
    return found == expected


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    found = [violation for crate in CRATES for violation in violations(REPO / crate / "src", FLOORS.get(crate))]
    for file, line, words in found:
        print(f"{Path(file).relative_to(REPO)}:{line}: {words}")
    return not found


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
