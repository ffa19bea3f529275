#!/usr/bin/env python3
"""Checks that the tests, items and files that the documentation names exist, and the tests that guests run.

In backticks, `module::name` and `file.rs::name` are a test or another item; `module::*` is all tests of a module; a name of four
words or more (`a_b_c_d`) is a test. A file is named by its path from the root of the repository, or by its own name.
"""

import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent

# Other crates' items, the kernel's names, metrics' names (crds/metrics tests these), and the example of how a test is named.
FOREIGN = re.compile(r"(sockeye_\w+|std|tokio|kube|aya|aya_obj|libc)::.*|(bpf|cgroup|sk|sock)_\w+|sockeye_(agent|api|build|operator|watch)_\w+|file::test")
CODE = re.compile(r"`([^`\s]+)`")
ITEM = re.compile(r"((?:[\w./-]+\.rs|[a-z]\w*)(?:::[a-z]\w*)*)::(\w+|\*)|([a-z0-9]+(?:_[a-z0-9]+){3,})")
FILE = re.compile(r"(?:agent|crds|deploy|docs|ebpf|operator|tests)/[a-z0-9_./-]+\.[a-z]+|[a-z0-9_]+\.rs")
GUESTS = "tests/kernels/tests.sh"
DEFINED = re.compile(r"\b(?:fn|struct|enum|trait|type|const|static|mod)\s+(\w+)")


def is_in(path, module):
    """Tells whether a file is, or is in, the module of that name. An inline `tests` is in the file of its parent."""
    if ".rs" in module:
        return path == module or path.endswith("/" + module)
    parts = Path(path).with_suffix("").parts
    return all(name in parts for name in module.split("::") if name != "tests")


def dead_filters(defined):
    """Yields the filters in GUESTS that are part of no test's name in agent/tests/kernel."""
    names = []
    for path, items in defined.items():
        module = re.fullmatch(r"agent/tests/kernel/(.*)\.rs", path)
        if module:
            module = re.sub(r"/?(main|mod)$", "", module[1]).replace("/", "::")
            names += [f"{module}::{item}" if module else item for item in items]
    lists = re.findall(r"^\w+=\(\n(.*?)^\)", (REPO / GUESTS).read_text(), re.S | re.M)
    yield from (part for part in " ".join(lists).split() if not any(part in name for name in names))


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPO, check=True, stdout=subprocess.PIPE)
    files = [path for path in listed.stdout.decode().splitlines() if (REPO / path).exists()]
    defined = {path: set(DEFINED.findall((REPO / path).read_text())) for path in files if path.endswith(".rs")}

    def item_exists(module, name):
        if not module:
            return any(name in names for names in defined.values())
        return any(is_in(path, module) and (name == "*" or name in names) or is_in(path, f"{module}::{name}")
                   for path, names in defined.items())

    def file_exists(name):
        return any(path == name or "/" not in name and path.endswith("/" + name) for path in files)

    missing = [f"{GUESTS}: there is no test {part}" for part in dead_filters(defined)]
    for page in (path for path in files if path.endswith(".md")):
        for number, line in enumerate((REPO / page).read_text().splitlines(), 1):
            for code in CODE.findall(line):
                item = ITEM.fullmatch(code)
                if FOREIGN.fullmatch(code):
                    continue
                if item and not item_exists(item[1], item[2] or item[3]) or FILE.fullmatch(code) and not file_exists(code):
                    missing.append(f"{page}:{number}: there is no {code}")
    print("\n".join(missing), end="\n" if missing else "")
    return not missing


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
