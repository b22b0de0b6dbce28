"""Reads a .safetensors file: a JSON header (its length first, 8 bytes, little endian), then the tensors' bytes."""
import json
import struct
from pathlib import Path

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


def read(path):
    """All tensors of the file, as read-only arrays by name."""
    data = Path(path).read_bytes()
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    base = 8 + header_size

    def tensor(entry):
        start, end = entry["data_offsets"]
        return np.frombuffer(data[base + start : base + end], DTYPES[entry["dtype"]]).reshape(entry["shape"])

    return {name: tensor(entry) for name, entry in header.items() if name != "__metadata__"}
