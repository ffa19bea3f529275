"""self_test.py TEXT...: tests that the comparison finds a difference in any line of these texts of a load."""

import struct
import sys

import load_text


def changed(line):
    """The line with another last word: the same word with another last character."""
    return line[:-1] + ("1" if line[-1] != "1" else "2")


def altered(lines, index):
    """Yields the text without a line, and with it changed."""
    yield lines[:index] + lines[index + 1 :]
    if lines[index].startswith("btf "):
        for line in changed_types(lines[index][4:]):
            yield lines[:index] + ["btf " + line] + lines[index + 1 :]
    elif lines[index].strip() not in ("btf", "frozen"):
        yield lines[:index] + [changed(lines[index])] + lines[index + 1 :]


def changed_types(digits):
    """BTF with a bit of its types changed, for some bits. Its header is 24 bytes long and says how long the types are."""
    data = bytes.fromhex(digits)
    for at in range(24, 24 + int.from_bytes(data[12:16], "little"), 23):
        yield (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]).hex()


def tell_apart(text, other):
    try:
        return any(load_text.differences(load_text.Load(text), load_text.Load(other)))
    except (ValueError, KeyError, IndexError, AttributeError, struct.error):
        # It is no text of a load any more.
        return True


passed = failed = 0
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    lines = text.splitlines()
    if tell_apart(text, text):
        failed += 1
        print(f"test {path} ... FAILED\n    it differs from itself")
    # A map that no program uses may be missing.
    used = load_text.Load(text).used()
    for index, line in enumerate(lines):
        unused = line.startswith("map ") and line[4:] not in used
        for other in altered(lines, index):
            if unused or line.startswith("#") or tell_apart(text, "\n".join(other)):
                passed += 1
            else:
                failed += 1
                print(f"test {path} ... FAILED\n    this line may be missing or differ: {line[:100]}")
print(f"self-test: {passed} passed, {failed} failed")
sys.exit(bool(failed) or not passed)
