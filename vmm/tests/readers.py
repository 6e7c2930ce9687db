"""Writes the whole disk of an image, as libyal's reader of its format has it, to a raw file.

Usage: readers.py vhdi|vmdk|qcow IMAGE RAW
"""

import sys

BLOCK = 1 << 20


def opened(library, path):
    """The image, by the library of this name."""
    if library == "vhdi":
        import pyvhdi

        image = pyvhdi.file()
        image.open(path)
    elif library == "qcow":
        import pyqcow

        image = pyqcow.file()
        image.open(path)
    else:
        import pyvmdk

        image = pyvmdk.handle()
        image.open(path)
        image.open_extent_data_files()
    return image


def main(library, path, raw):
    image = opened(library, path)
    size = image.get_media_size()
    zeros = bytes(BLOCK)
    with open(raw, "wb") as file:
        for offset in range(0, size, BLOCK):
            length = min(BLOCK, size - offset)
            block = image.read_buffer_at_offset(length, offset)
            if len(block) != length:
                raise SystemExit(f"{len(block)} bytes at {offset} instead of {length}")
            if block != zeros[:length]:
                file.seek(offset)
                file.write(block)
        file.truncate(size)


main(*sys.argv[1:])
