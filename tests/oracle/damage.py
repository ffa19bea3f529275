"""damage.py FOLDER OBJECT...: writes copies of objects whose .BTF or .BTF.ext is damaged or there twice, and prints
their paths, each with the object that it was made of. Each copy differs in one field of a header, in one of the first
words of a section, or by a second section of the same name.
"""

import os
import struct
import sys

# sh_type, sh_offset, sh_size: the place in a section's header, and the format.
TYPE, OFFSET, SIZE = (4, "<I"), (24, "<Q"), (32, "<Q")
# The words of .BTF.ext that are damaged: its header, and the record size and first section of a part.
WORDS = 11
NUMBERS = [0, 2, 1 << 12]


def sections(file):
    """Returns the place of each section's header, by its name."""
    table, (count, names) = struct.unpack_from("<Q", file, 40)[0], struct.unpack_from("<HH", file, 60)
    places = [table + 64 * index for index in range(count)]
    strings = struct.unpack_from(OFFSET[1], file, places[names] + OFFSET[0])[0]

    def name(place):
        start = strings + struct.unpack_from("<I", file, place)[0]
        return bytes(file[start : file.index(0, start)]).decode()

    return {name(place): place for place in places}


def put(file, at, form, value):
    copy = bytearray(file)
    struct.pack_into(form, copy, at, value)
    return copy


def doubled(file, header, shifts):
    """Adds a section with the same header. The bytes of the two begin later by these shifts."""
    table, count = struct.unpack_from("<Q", file, 40)[0], struct.unpack_from("<H", file, 60)[0]
    headers = bytearray(file[table : table + 64 * count] + file[header : header + 64])
    for at, shift in zip([header - table, 64 * count], shifts):
        (start,) = struct.unpack_from(OFFSET[1], headers, at + OFFSET[0])
        struct.pack_into(OFFSET[1], headers, at + OFFSET[0], start + shift)
    padded = bytearray(file) + bytes(-len(file) % 8)
    struct.pack_into("<Q", padded, 40, len(padded))
    struct.pack_into("<H", padded, 60, count + 1)
    return padded + headers


def damaged(file):
    headers = sections(file)
    for name in [".BTF", ".BTF.ext"]:
        header = headers[name]
        for (at, form), values in [(TYPE, [8]), (OFFSET, [1 << 40]), (SIZE, [0, 6, 24, 32])]:
            for value in values:
                yield put(file, header + at, form, value)
    for name in filter(headers.get, [".BTF", ".BTF.ext", "license"]):
        for shifts in [(0, 0), (1, 0), (0, 1)]:
            yield doubled(file, headers[name], shifts)
    start = struct.unpack_from(OFFSET[1], file, headers[".BTF.ext"] + OFFSET[0])[0]
    for word in range(WORDS):
        for value in NUMBERS:
            yield put(file, start + 4 * word, "<I", value)


def main(folder, objects):
    for path in objects:
        name = os.path.basename(path).removesuffix(".bpf.o")
        with open(path, "rb") as file:
            content = file.read()
        for number, copy in enumerate(damaged(content)):
            to = os.path.join(folder, f"{name}-{number}.bpf.o")
            with open(to, "wb") as file:
                file.write(copy)
            print(to, path)


main(sys.argv[1], sys.argv[2:])
