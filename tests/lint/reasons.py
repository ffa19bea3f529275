#!/usr/bin/env python3
"""The page of reasons, docs/reasons.md, and the record that it is made of, docs/reasons.json: what tests provoke.

    tests/lint/reasons.py                 checks that each reason is provoked, and that the page is that of the record
    tests/lint/reasons.py make            makes both anew from the last runs of tests, target/reasons/STAGE.jsonl
    tests/lint/reasons.py compare STAGE   checks that what the last run of a stage provoked is in the record
    tests/lint/reasons.py --self-test     checks made-up records whose complaints are known

A test calls `sockeye_crds_testing::provoked` with a reason and the message that a user would see. What the reasons mean, and
what to do, is said in crds/src/reason.rs alone. Of a stage that did not run, the record stays as it is.
"""

import json
import re
import sys
import textwrap
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
SOURCE = REPO / "crds/src/reason.rs"
RECORD = REPO / "docs/reasons.json"
PAGE = REPO / "docs/reasons.md"
RUNS = REPO / "target/reasons"

# What the tests of these stages provoke is the same on every machine, so that a message which no test provokes any more is
# found. Others depend on the kernel, or on timing.
SAME_EVERYWHERE = {"unit"}

# What differs from run to run.
VARYING = [
    (re.compile(r"\b[0-9a-fA-F]{63,65}\b"), "<digest>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uid>"),
    (re.compile(r"(127\.0\.0\.1|\[::1\]):\d+"), r"\1:<port>"),
    (re.compile(r"/tmp/[^\s,:;)'\"]+"), "<directory>"),
    (re.compile(r"(\S)\1{39,}"), r"\1\1\1…"),
    # The sequence of a revision without a cluster is a hash.
    (re.compile(r"-\d{6,10} (keeps? running)"), r"-<sequence> \1"),
    (re.compile(r"\b(program|map|cgroup) \d+(, \d+)*"), r"\1 <id>"),
    (re.compile(r"(Ready nodes: )[\w.-]+: "), r"\1<node>: "),
]

HEAD = """\
# Reasons

<!-- Made by `make reasons` of crds/src/reason.rs and docs/reasons.json. -->

Each condition, and each state of a BpfProgram on a node, has a reason. This page says for each reason what it means, where
you see it, and what to do. Below that are messages as sockeye's tests provoke them. `<digest>` and the like stand for what
differs from case to case.

A node's *known good revision* is the last revision that was in effect there. Other controllers' conditions may have other
reasons. The operator writes an Event with the same reason when a condition changes.
"""


def normalized(message):
    for pattern, word in VARYING:
        message = pattern.sub(word, message)
    return message


def reasons(source):
    """Yields each reason, as a name, what it means, what to do, and where it is shown."""
    begin = source.index("reasons! {\n")
    shown, doc, comment = "", [], []
    for line in source[begin:source.index("\n}\n", begin)].splitlines()[1:]:
        line = line.strip()
        if line.startswith("///"):
            doc.append(line[3:].strip())
        elif line.startswith("//"):
            comment.append(line[2:].strip())
        else:
            if comment:
                shown, comment = " ".join(comment).removeprefix("Shown in: "), []
            meaning, _, remedy = " ".join(doc).partition("To do: ")
            yield line.rstrip(","), meaning.strip(), remedy.strip(), shown
            doc = []


def read_runs(stages):
    """Returns the entries of the last runs of these stages, each once, in the record's order."""
    lines = [(stage, line) for stage in stages for line in (RUNS / f"{stage}.jsonl").read_text().splitlines()]
    entries = []
    for stage, line in lines:
        said = json.loads(line)
        entries.append({**said, "message": normalized(said["message"]), "stage": stage})
    return ordered(entries)


def ordered(entries):
    keys = ("reason", "file", "stage", "message")
    return [dict(zip(keys, entry)) for entry in sorted({tuple(entry[key] for key in keys) for entry in entries})]


def render(source, record):
    """Returns the page."""
    link = re.compile(r"`docs/([\w-]+\.md)(#[\w-]+)?`")
    parts = [HEAD]
    for name, meaning, remedy, shown in reasons(source):
        texts = [meaning, f"- **Shown in:** {shown}", f"- **To do:** {remedy}"]
        texts = [link.sub(lambda page: f"[{page[1]}]({page[1]}{page[2] or ''})", text) for text in texts]
        messages = sorted({entry["message"] for entry in record if entry["reason"] == name})
        wrapped = [textwrap.fill(message, 116, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
                   for message in messages]
        parts.append("\n".join([f"## {name}", "", texts[0], "", *texts[1:], "", "```text", *wrapped, "```", ""]))
    return "\n".join(parts)


def complaints(source, record, page):
    """Yields what is wrong with a record and its page."""
    names = [name for name, *_ in reasons(source)]
    for name, meaning, remedy, shown in reasons(source):
        if not (meaning and remedy and shown):
            yield f"crds/src/reason.rs: {name} lacks what it means, what to do, or where it is shown"
    provoked = {entry["reason"] for entry in record}
    yield from (f"no test provokes the reason {name}" for name in names if name not in provoked)
    yield from (f"the record has {name}, which is no reason" for name in sorted(provoked.difference(names)))
    for file in sorted({entry["file"] for entry in record}):
        path = REPO / file
        if not path.exists() or "provoked(" not in path.read_text():
            yield f"the record names {file}, which provokes nothing"
    if page != render(source, record):
        yield "docs/reasons.md is not that of docs/reasons.json and crds/src/reason.rs: make reasons"


def differences(stage, record, run):
    """Yields what a run provoked and is not in the record; of some stages also the contrary."""
    def key(entry):
        return (entry["reason"], entry["file"], entry["message"])

    recorded = {key(entry) for entry in record if entry["stage"] == stage}
    said = {key(entry) for entry in run}
    for reason, file, message in sorted(said - recorded):
        yield f"{file}: not in docs/reasons.json (make reasons): {reason}: {message}"
    if stage in SAME_EVERYWHERE:
        for reason, file, message in sorted(recorded - said):
            yield f"{file}: in docs/reasons.json, and no test provoked it (make reasons): {reason}: {message}"


def make():
    stages = sorted(path.stem for path in RUNS.glob("*.jsonl"))
    if not stages:
        sys.exit("no tests have run: tests/run.sh unit")
    old = json.loads(RECORD.read_text()) if RECORD.exists() else []
    record = ordered([entry for entry in old if entry["stage"] not in stages] + read_runs(stages))
    RECORD.write_text(json.dumps(record, indent=0, ensure_ascii=False) + "\n")
    PAGE.write_text(render(SOURCE.read_text(), record))
    print(f"{len(record)} messages of {len({entry['reason'] for entry in record})} reasons, made anew from: {' '.join(stages)}")
    return []


def self_test():
    source = "reasons! {\n    // Shown in: there.\n    /// It is so.\n    ///\n    /// To do: see\n    /// `docs/a.md#b`.\n    A,\n}\n"
    entry = {"reason": "A", "file": "crds/testing/src/lib.rs", "stage": "unit", "message": "spec.a: no"}
    assert list(reasons(source)) == [("A", "It is so.", "see `docs/a.md#b`.", "there.")]
    page = render(source, [entry])
    assert "[a.md](a.md#b)" in page and "spec.a: no" in page
    assert list(complaints(source, [entry], page)) == []
    assert len(list(complaints(source, [], page))) == 2, "no test, and another page"
    assert len(list(complaints(source, [entry, {**entry, "reason": "B"}], page))) == 1
    assert len(list(complaints(source, [{**entry, "file": "gone.rs"}], page))) == 1
    assert list(differences("unit", [entry], [entry])) == []
    other = {**entry, "message": "spec.a: never"}
    assert len(list(differences("unit", [entry], [other]))) == 2
    assert len(list(differences("kernel", [{**entry, "stage": "kernel"}], []))) == 0
    digest = "a1" * 32
    assert normalized(f"sha256:{digest} in /tmp/.tmpX/a: no") == "sha256:<digest> in <directory>: no"
    return []


def main(arguments):
    match arguments:
        case ["--self-test"]:
            found = self_test()
        case ["make"]:
            found = make()
        case ["compare", stage]:
            run = read_runs([stage]) if (RUNS / f"{stage}.jsonl").exists() else []
            found = list(differences(stage, json.loads(RECORD.read_text()), run))
        case []:
            found = list(complaints(SOURCE.read_text(), json.loads(RECORD.read_text()), PAGE.read_text()))
        case _:
            sys.exit(__doc__)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
