"""provenance.py SOURCES COMMIT VERSION REGISTRY ROOT: prints the predicate of a SLSA provenance (v1) of a release.

It says what was built from what: the commit, the crates' lock file, and each Debian package in the folder that has the
compilers. It holds no time and no name of a machine, so that two builds of a commit have the same.
"""

import hashlib
import json
import os
import sys

REPOSITORY = "https://github.com/sockeye-dev/sockeye"


def packages(root):
    """Lists the installed packages by dpkg's own record."""
    with open(os.path.join(root, "var/lib/dpkg/status")) as file:
        for paragraph in file.read().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Status") == "install ok installed":
                yield fields["Package"], fields["Version"], fields["Architecture"]


def main():
    sources, commit, version, registry, root = sys.argv[1:]
    with open(os.path.join(sources, "Cargo.lock"), "rb") as file:
        lock = hashlib.sha256(file.read()).hexdigest()
    dependencies = [
        {"uri": f"git+{REPOSITORY}", "digest": {"gitCommit": commit}},
        {"uri": "file:Cargo.lock", "digest": {"sha256": lock}},
    ]
    dependencies += [
        {"uri": f"pkg:deb/debian/{name}@{version}?arch={architecture}"}
        for name, version, architecture in sorted(packages(root))
    ]
    json.dump({
        "buildDefinition": {
            "buildType": f"{REPOSITORY}/blob/main/docs/releases.md#how-it-is-built",
            "externalParameters": {"source": f"git+{REPOSITORY}@{commit}", "version": version, "registry": registry},
            "internalParameters": {},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {"builder": {"id": f"{REPOSITORY}/blob/main/deploy/release/release.sh"}},
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
