"""values.py VALUES REGISTRY NAME DIGEST: sets the registry and one image's digest in the chart's values, and keeps every comment."""

import re
import sys


def replaced_once(pattern, replacement, text):
    text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        sys.exit(f"values.yaml has no {pattern}")
    return text


def main():
    path, registry, name, digest = sys.argv[1:]
    with open(path) as file:
        text = file.read()
    text = replaced_once(r"^  registry: \S+$", f"  registry: {registry}", text)
    text = replaced_once(rf'(^{name}:$.*?^    digest: )""', rf'\g<1>"{digest}"', text)
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
