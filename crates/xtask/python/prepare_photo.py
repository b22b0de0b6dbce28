#!/usr/bin/env python3
"""Turns a photo into the body of a KServe v2 request with a binary tensor, for the `mobilenet` archive.

usage: prepare_photo.py PHOTO OUT_DIR

Writes OUT_DIR/photo.json (the JSON part alone: its size is the header Inference-Header-Content-Length) and
OUT_DIR/photo.body (the JSON part, then the tensor: FP32 [1, 3, 224, 224], RGB, (value - 127.5) / 127.5).
"""
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, RESIZED = 224, 256


def tensor(photo):
    """The shorter side scaled to 256 pixels, the middle 224 x 224 cut out, channels first."""
    image = Image.open(photo).convert("RGB")
    scale = RESIZED / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return ((pixels - 127.5) / 127.5).transpose(2, 0, 1)[None].astype("<f4")


def header(values):
    request = {
        "inputs": [
            {
                "name": "input",
                "datatype": "FP32",
                "shape": list(values.shape),
                "parameters": {"binary_data_size": values.nbytes},
            }
        ],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 5}}],
    }
    return json.dumps(request).encode()


if __name__ == "__main__":
    values, out = tensor(sys.argv[1]), Path(sys.argv[2])
    json_part = header(values)
    (out / "photo.json").write_bytes(json_part)
    (out / "photo.body").write_bytes(json_part + values.tobytes())
