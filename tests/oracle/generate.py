"""generate.py FOLDER SEED...: writes a small BPF program in C for each seed into a folder, the same for the same seed.

The first lines of a program say which of its functions to load and with which flags to compile it.
"""

import os
import random
import sys

from generator.program import Source

for seed in map(int, sys.argv[2:]):
    with open(os.path.join(sys.argv[1], f"seed-{seed}.bpf.c"), "w", encoding="utf-8") as file:
        file.write(Source(random.Random(seed)).text())
