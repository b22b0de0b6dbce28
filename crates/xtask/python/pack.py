#!/usr/bin/env python3
"""Packs a model repository into a model archive; the same tree always gives the same bytes.

usage: pack.py REPOSITORY_DIR OUT.tar.gz

Entries begin with `./`, as `tar -C DIR -czf OUT .` writes them. Compression is light: weights hardly shrink.
"""
import gzip
import sys
import tarfile
from pathlib import Path


def entry(archive, root, path):
    info = archive.gettarinfo(path, "./" + path.relative_to(root).as_posix().removeprefix("."))
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if path.is_dir() else 0o644
    return info


def pack(root, out):
    with open(out, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in [root, *sorted(root.rglob("*"))]:
                info = entry(archive, root, path)
                if path.is_dir():
                    archive.addfile(info)
                else:
                    with path.open("rb") as content:
                        archive.addfile(info, content)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
