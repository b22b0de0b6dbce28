"""Decompresses a gzip file held in memory with zlib-ng, in pieces, and prints the seconds it took and the bytes that came out."""

import sys
import time

from zlib_ng import zlib_ng

PIECE_BYTES = 256 * 1024

with open(sys.argv[1], "rb") as file:
    compressed = memoryview(file.read())
begun = time.perf_counter()
decoder = zlib_ng.decompressobj(wbits=31)
size = 0
for start in range(0, len(compressed), PIECE_BYTES):
    size += len(decoder.decompress(compressed[start : start + PIECE_BYTES]))
size += len(decoder.flush())
print(time.perf_counter() - begun, size)
