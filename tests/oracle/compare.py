"""compare.py RECORD PLAN KERNELS OBJECTS...: compares what libbpf and sockeye load, and fails at unlisted differences.

RECORD and PLAN are the programs that README.md describes. KERNELS is a file of lines TABLE KERNEL_BTF. An object
stands with the programs to load and the settings, as "OBJECT PROGRAM... SETTING..."; without programs, all are loaded.
Ends with a line as cargo's tests do.
"""

import concurrent.futures
import fnmatch
import os
import re
import subprocess
import sys

import load_text

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = os.path.join(os.path.dirname(HERE), "objects", "cases")


def only_data(sockeye, _):
    """Global data needs no types, and neither does a program without maps."""
    return all(kind != "map" or name.startswith(".") for kind, name in sockeye.things)


def only_weak_options(_, source):
    """The programs ask for no option that may not be missing."""
    strong = set(re.findall(r"\b(CONFIG_\w+)(?:\[\w*\])? __kconfig;", source.text))
    return bool(source.text) and not strong & source.words


# What must be true of sockeye's load, and of the source, for an entry to count.
CONDITIONS = {"only-data": only_data, "only-weak-options": only_weak_options}


class Listed:
    """One entry of the file of differences."""

    def __init__(self, line, reason):
        self.sign, self.objects, self.tables, pattern = line.split(None, 3)
        condition, _, rest = pattern.partition(" ")
        self.condition = CONDITIONS[condition.removeprefix("if=")] if condition.startswith("if=") else None
        pattern = rest if self.condition else pattern
        self.pattern, self.reason, self.line, self.used = re.compile(pattern), reason, line, False

    def has(self, name, table, difference, sockeye, source):
        """What the pattern calls unused must not be a word in the source of the programs."""
        fits = fnmatch.fnmatchcase(name, self.objects) and fnmatch.fnmatchcase(table, self.tables)
        fits = fits and difference[0] == self.sign and self.pattern.fullmatch(difference[2:])
        fits = bool(fits) and fits.groupdict().get("unused") not in source.words
        fits = fits and (self.condition is None or self.condition(sockeye, source))
        self.used = self.used or fits
        return fits


def listed(path):
    """Entries stand below their reason, which is one or several comments."""
    entries, reason = [], ""
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if line.startswith("#"):
                reason += line[1:]
            elif not line:
                reason = ""
            elif not reason:
                raise ValueError(f"{path}: no reason stands above: {line}")
            else:
                entries.append(Listed(line, reason))
    return entries


def load(command):
    """Returns the text of a load, or raises an error if the tool failed."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with {run.returncode}: {run.stderr.strip()}")
    return load_text.Load(run.stdout)


class Source:
    """The source of an object: its text, if it is at hand, and the words in the named programs and all that they call.
    Functions have their brackets on own lines."""

    def __init__(self, path, named):
        name = os.path.splitext(path)[0] + ".c"
        places = [name, os.path.join(CASES, os.path.basename(name))]
        place = next(filter(os.path.exists, places), None)
        self.text, self.words = "", set()
        if place:
            with open(place, encoding="utf-8") as file:
                self.text = file.read()
        functions = re.findall(r"^([^\n]*)\n\{\n(.*?)\n\}$", self.text, re.MULTILINE | re.DOTALL)
        new = set(named)
        while new and self.text:
            self.words |= new
            bodies = [body for head, body in functions if new & set(re.findall(r"(\w+)\(", head))]
            new = {word for body in bodies for word in re.findall(r"\w+", body)} - self.words


def held(load, named):
    """Returns the programs that program arrays hold beside those that are named. The agent loads them, too."""
    slots = [line.split() for (kind, _), lines in load.things.items() if kind == "map" for line in lines]
    found = {words[3] for words in slots if words[0] == "slot" and words[2] == "prog"}
    return sorted(found - {name.partition("=")[0] for name in named}) if named else []


def compared(record, plan, table, btf, item):
    path, *words = item.split()
    settings = [word for word in words if word.startswith(("global:", "entries:"))]
    named = [word for word in words if word not in settings]
    table = os.path.join(HERE, "tables", table)
    while True:
        sockeye = load([plan, path, "--features", table, "--kernel-btf", btf, *named, *settings])
        if not held(sockeye, named):
            break
        named += held(sockeye, named)
    # libbpf loads the object's twin, if there is one. clang may number its types otherwise.
    twin = os.path.join(os.path.dirname(path), "twins", os.path.basename(path))
    if not os.path.exists(twin):
        twin = path
    libbpf = load([record, twin, table, btf, *named, *settings])
    if twin != path:
        libbpf.things.pop(("btf", ""), None)
        sockeye.things.pop(("btf", ""), None)
    both_refused = bool(libbpf.refused and sockeye.refused)
    return list(load_text.differences(libbpf, sockeye)), both_refused, sockeye, Source(path, named)


def main(record, plan, kernels, *items):
    entries = listed(os.environ.get("SOCKEYE_DIFFERENCES", os.path.join(HERE, "differences")))
    with open(kernels, encoding="utf-8") as file:
        tables = [line.split() for line in file]
    passed = failed = refused = alike = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(compared, record, plan, *table, item): (item, table[0]) for table in tables for item in items
        }
        for job in concurrent.futures.as_completed(jobs):
            item, table = jobs[job]
            name = os.path.basename(item.split()[0])
            try:
                found, both_refused, sockeye, source = job.result()
                unlisted = [d for d in found if not any([e.has(name, table, d, sockeye, source) for e in entries])]
                refused, alike = refused + both_refused, alike + (not found and not both_refused)
            except Exception as error:
                unlisted = [f"! {error}"]
            passed, failed = passed + (not unlisted), failed + bool(unlisted)
            if unlisted:
                print(f"test {item} on {table} ... FAILED")
                print("\n".join(f"    {line[:300]}" for line in unlisted[:20] + ["..."] * (len(unlisted) > 20)))
    for entry in entries:
        if not entry.used and os.environ.get("SOCKEYE_CHAOS"):
            failed += 1
            print(f"test differences ... FAILED\n    nothing differs so any more: {entry.line}")
    print(f"{alike} loads are the same, {refused} are refused by both, {passed - alike - refused} differ as listed")
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed")
    return bool(failed) or not passed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
