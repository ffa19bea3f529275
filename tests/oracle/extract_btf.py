"""extract_btf.py VMLINUZ: writes the BTF of a kernel image to standard output: x86's, or an uncompressed one of arm64.

The image's header says where the compressed kernel lies (Documentation/arch/x86/boot.rst: payload_offset,
payload_length), which is an ELF file with a section .BTF. arm64's image has no sections: its BTF is found by the
header.
"""

import lzma
import struct
import subprocess
import sys
import zlib


def payload(image):
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start : start + length]


def decompressed(data):
    # Behind the compressed data lies its size, which the tools take for rubbish.
    if data.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data)
    tools = {b"\x28\xb5\x2f\xfd": "zstd", b"\x02\x21\x4c\x18": "lz4"}
    if data[:4] not in tools:
        sys.exit(f"the kernel is compressed by a method that begins with {data[:4].hex()}")
    tool = [tools[data[:4]], "-dc"]
    return subprocess.run(tool, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def section(elf, wanted):
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + index * size) for index in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if elf.startswith(wanted + b"\0", strings + name):
            return elf[offset : offset + length]
    sys.exit("the kernel has no BTF")


def vmlinux_types(image):
    """The first BTF whose strings follow its types, and that is as large as a kernel's."""
    at = -1
    while (at := image.find(b"\x9f\xeb\x01\x00\x18\x00\x00\x00", at + 1)) >= 0:
        types, types_length, strings, strings_length = struct.unpack_from("<IIII", image, at + 8)
        if types == 0 and strings == types_length > 1 << 20:
            return image[at : at + 24 + strings + strings_length]
    sys.exit("the kernel has no BTF")


with open(sys.argv[1], "rb") as file:
    image = file.read()
# Documentation/arch/arm64/booting.rst
is_arm64 = image[0x38:0x3C] == b"ARMd"
sys.stdout.buffer.write(vmlinux_types(image) if is_arm64 else section(decompressed(payload(image)), b".BTF"))
