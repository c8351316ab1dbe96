"""Remove from an installation what no program reads at run time: `python slim.py /opt/deltaloom`.

Two thirds of the bytes of compiled libraries are debug symbols, after the segments that the loader maps. Nor
does a service need Cython's sources, translations, icons, highlighters of many languages, or the brokers of
FastStream whose clients are not installed.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

UNUSED = {".pyx", ".pxd", ".pyi", ".po", ".mo", ".png", ".ico"}
"""Suffixes of files that no program reads."""

UNUSED_FOLDERS = re.compile(r"/(faststream/(confluent|kafka|mqtt|nats|rabbit)|pygments/(lexers|styles))/")
"""Folders that are not needed; the second group is set for those of FastStream, which go as a whole."""
USED = {"__init__", "_mapping", "default", "python", "special"}
"""Modules of Pygments that stay: a traceback may be highlighted."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
"""Header of a 64-bit ELF file (System V ABI, chapter 4)."""
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ELF_64_LITTLE = b"\x7fELF\x02\x01"


def cut_symbols(library: Path) -> None:
    """Truncate a shared library after its last segment, without its table of sections. Skip other files."""
    data = library.read_bytes()
    if not data.startswith(_ELF_64_LITTLE):
        return
    header = [*_HEADER.unpack_from(data)]
    first, size, number = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(data, first + n * size) for n in range(number)]
    end = max(offset + length for _, _, offset, _, _, length, _, _ in segments)
    header[6] = header[12] = header[13] = 0  # offset, length and names of the table of sections
    library.write_bytes(_HEADER.pack(*header) + data[_HEADER.size : end])


def slim(folder: Path) -> None:
    """Remove the files below a folder that are not needed."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        found = UNUSED_FOLDERS.search(path.as_posix())
        if path.suffix in UNUSED or (found and (found[2] or path.name.partition(".")[0] not in USED)):
            path.unlink()
        elif path.suffix == ".so" or ".so." in path.name:
            cut_symbols(path)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
