"""Drives a standalone agent through the life of one BpfProgram, and compares its report with the kernel's.

Started by tests/demo.sh, which prepares the mount namespace and the cgroup.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import yaml

CONNECTIONS = 100
PINS = pathlib.Path("/sys/fs/bpf/sockeye")
# enum { BPF_SOCK_OPS_VOID, ... } of linux/bpf.h: the events that my_prog counts, by the index in its map.
EVENTS = [
    "VOID",
    "TIMEOUT_INIT",
    "RWND_INIT",
    "TCP_CONNECT_CB",
    "ACTIVE_ESTABLISHED_CB",
    "PASSIVE_ESTABLISHED_CB",
    "NEEDS_ECN",
    "BASE_RTT",
    "RTO_CB",
    "RETRANS_CB",
]


class Disagreement(Exception):
    """The agent and the kernel disagree, and the demo fails."""


def main() -> int:
    parser = argparse.ArgumentParser()
    for path in ("agent", "example", "work", "cgroup"):
        parser.add_argument(f"--{path}", type=pathlib.Path, required=True)
    args = parser.parse_args()
    log = args.work / "agent.log"
    try:
        demo(args, log)
    except Disagreement as why:
        print(f"\nThe demo failed: {why}\nThe agent's last lines:", file=sys.stderr)
        print("\n".join(log.read_text().splitlines()[-20:]), file=sys.stderr)
        return 1
    return 0


def demo(args, log):
    manifests = args.work / "manifests"
    manifests.mkdir()
    output = args.work / "agent.out"
    command = [args.agent, "standalone", "--manifests", manifests, "--bpffs", "/sys/fs/bpf"]
    command += ["--cgroup-root", args.cgroup, "--node-name", "demo"]
    say("an agent watches a folder of manifests", *command)
    with output.open("w") as out, log.open("w") as err:
        agent = subprocess.Popen(command, stdout=out, stderr=err)
    try:
        manifest = manifests / args.example.name
        say(f"{args.example} is put there")
        shutil.copy(args.example, manifest)
        status = until("the agent reports Ready", agent, lambda: ready(manifest.with_suffix(".status.yaml")))
        name = status["metadata"]["name"]
        detail = read_yaml(manifests / "node.detail.status.yaml")["status"]
        node = read_yaml(manifests / "node.status.yaml")["status"]
        pins = PINS / name

        say(f"{CONNECTIONS} TCP connections are made, both ends in {args.cgroup}")
        connect(args.cgroup)

        say("what the agent prints, as `kubectl get bpfprograms` would")
        table = last_table(output)
        print(*table, sep="\n")

        say("what the map my_map counted (bpftool map dump)")
        counts = dump(pins / "maps/my_map")
        for event, count in zip(EVENTS, counts):
            print(f"  {event:<24}{count:>6}")

        say("what the kernel says of the same IDs (bpftool)")
        kernel = {kind: pinned(kind, pins) for kind in ("prog", "map", "link")}
        for kind, objects in kernel.items():
            for found in objects.values():
                print(bpftool(kind, "show", "id", found["id"]).rstrip())

        compare(status["status"], (node, detail), table, kernel)
        for event in ("ACTIVE_ESTABLISHED_CB", "PASSIVE_ESTABLISHED_CB"):
            count = counts[EVENTS.index(event)]
            if count != CONNECTIONS:
                raise Disagreement(f"{event} is {count}, but {CONNECTIONS} connections were made")
        print("\nThe table, the status and the kernel agree.")

        say(f"{manifest.name} is removed")
        manifest.unlink()
        until("all of it is gone", agent, lambda: gone(pins, kernel))
        print("Programs, maps, links and pins are gone.")
    finally:
        agent.terminate()
        agent.wait()


def say(what, *command):
    print(f"\n== {what}", flush=True)
    if command:
        print("$", *command, flush=True)


def until(what, agent, attempt, seconds=30):
    """Calls `attempt` until it returns something, and returns that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = attempt()
        if result:
            return result
        if agent.poll() is not None:
            raise Disagreement(f"the agent exited with {agent.returncode} before {what}")
        time.sleep(0.05)
    raise Disagreement(f"not within {seconds} s: {what}")


def read_yaml(path):
    with path.open() as text:
        return yaml.safe_load(text)


def ready(path):
    if not path.exists():
        return None
    program = read_yaml(path)
    conditions = {c["type"]: c for c in program["status"].get("conditions", [])}
    if conditions.get("Stalled", {}).get("status") == "True":
        raise Disagreement(conditions["Stalled"]["message"])
    return program if conditions.get("Ready", {}).get("status") == "True" else None


def connect(cgroup):
    """Connects from a process in the cgroup: a socket belongs to the cgroup that created it."""
    child = os.fork()
    if child == 0:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(CONNECTIONS):
                with socket.create_connection(server.getsockname()):
                    server.accept()[0].close()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise Disagreement("the connections could not be made")


def bpftool(*args):
    return subprocess.run(["bpftool", *map(str, args)], check=True, text=True, capture_output=True).stdout


def pinned(kind, pins):
    """Returns what bpftool prints of each pin of that kind, by path."""
    folder = {"prog": "programs", "map": "maps", "link": "links"}[kind]
    paths = sorted(p for p in (pins / folder).rglob("*") if p.is_file())
    return {str(path): json.loads(bpftool("-j", kind, "show", "pinned", path)) for path in paths}


def dump(pin):
    """Returns the values of an array of longs."""
    entries = json.loads(bpftool("-j", "map", "dump", "pinned", pin))

    def number(octets):
        return int.from_bytes((int(o, 16) for o in octets), sys.byteorder)

    values = {number(entry["key"]): number(entry["value"]) for entry in entries}
    return [values[i] for i in range(len(EVENTS))]


def last_table(output):
    lines = output.read_text().splitlines()
    header = max((i for i, line in enumerate(lines) if line.startswith("NAME")), default=None)
    if header is None:
        raise Disagreement("the agent printed no table")
    return lines[header:]


def compare(status, node_and_detail, table, kernel):
    """Compares the table, and the statuses of BpfProgram, BpfNode and BpfNodeDetail, with the kernel."""
    ids = {kind: sorted(o["id"] for o in objects.values()) for kind, objects in kernel.items()}

    expected = {"DESIRED": "1", "UPDATED": "1", "FAILED": "0", "PODS": "", "READY": "True"}
    expected |= {"PROGRAM-IDS": joined(ids["prog"]), "MAP-IDS": joined(ids["map"])}
    for column, value in expected.items():
        check(f"column {column}", cell(table, column), value)

    node, detail = node_and_detail
    (of_node,) = status["nodeStatuses"]
    (reported,) = map(json.loads, node["programs"].values())
    for said in (of_node, reported):
        check("the programs", sorted(said["programIDs"]), ids["prog"])
        check("the maps", sorted(said["mapIDs"]), ids["map"])
        check("the number of links", said["links"], len(ids["link"]))

    (described,) = detail["programs"]
    for kind, objects in (("prog", "programs"), ("map", "maps"), ("link", "links")):
        ids_by_pin = {o["pinPath"]: o["id"] for o in described[objects]}
        check(f"pins and IDs of {objects}", ids_by_pin, {path: o["id"] for path, o in kernel[kind].items()})
    for program in described["programs"]:
        found = kernel["prog"][program["pinPath"]]
        check("tag", program["tag"], found["tag"])
        check("the maps it uses", sorted(program.get("mapIDs", [])), sorted(found.get("map_ids", [])))
    for link in described["links"]:
        check("the link's program", link["programID"], kernel["link"][link["pinPath"]]["prog_id"])
        check("in effect", link["inEffect"], True)


def cell(table, column):
    """Returns a column's cell in the first row, which may be empty: cells begin where their headings do."""
    start = table[0].index(column)
    rest = table[0][start + len(column) :]
    end = start + len(column) + len(rest) - len(rest.lstrip()) if rest.strip() else None
    return table[1][start:end].strip()


def check(what, reported, found):
    if reported != found:
        raise Disagreement(f"{what}: the agent says {reported}, the kernel {found}")


def joined(ids):
    return ",".join(map(str, ids))


def gone(pins, kernel):
    """Tells whether neither pins nor objects are left."""
    alive = (
        subprocess.run(["bpftool", kind, "show", "id", str(o["id"])], capture_output=True).returncode == 0
        for kind, objects in kernel.items()
        for o in objects.values()
    )
    return not pins.exists() and not any(alive)


if __name__ == "__main__":
    sys.exit(main())
