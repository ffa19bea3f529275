"""krew.py VERSION DOWNLOADS ARCHIVE...: prints Krew's manifest of the command line
(https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/).

The archives are files named sockeye-linux-ARCH.tar.gz. DOWNLOADS is the address of the folder in which users find them.
"""

import hashlib
import re
import sys
from pathlib import Path

HEAD = """\
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: sockeye
spec:
  version: v{version}
  homepage: https://github.com/sockeye-dev/sockeye
  shortDescription: Show what eBPF programs do on nodes and pods
  description: |
    Shows what is attached where and since when, what it costs, what its maps
    contain in words, and why something is not in effect, for the programs
    that sockeye, an operator, runs as BpfProgram resources.
  caveats: |
    Programs, maps and events are read from sockeye's agents, by port-forward
    and with your own rights.
  platforms:
"""
PLATFORM = """\
  - selector:
      matchLabels:
        os: linux
        arch: {architecture}
    uri: {downloads}/{archive}
    sha256: {sha256}
    bin: sockeye
    files:
    - from: sockeye
      to: .
    - from: LICENSE
      to: .
"""


def main():
    version, downloads, *archives = sys.argv[1:]
    print(end=HEAD.format(version=version))
    for archive in map(Path, archives):
        architecture = re.fullmatch(r"sockeye-linux-(\w+)\.tar\.gz", archive.name)
        if not architecture:
            sys.exit(f"{archive} is not named sockeye-linux-ARCH.tar.gz")
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        print(end=PLATFORM.format(architecture=architecture[1], downloads=downloads, archive=archive.name, sha256=sha256))


if __name__ == "__main__":
    main()
