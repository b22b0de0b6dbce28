#!/usr/bin/env python3
"""Computes what all-MiniLM-L6-v2 answers, in float64 with numpy, straight from the package's weights.

usage: minilm_reference.py MODEL_DIR OUT.json

It shares nothing with the ONNX graph or the server: the tests compare those with this. OUT.json holds
{"sets": {"demo": {"texts": [..], "token_ids": [[..]], "embeddings": [[384 numbers]]}, "batch": {...16 texts...}}}.
Each text is computed alone, without padding.
"""
import json
import math
import sys
from pathlib import Path

import numpy as np

import safetensors_file
import wordpiece

MAX_LENGTH = 256
TEXTS = Path(__file__).with_name("reference_texts.json")


def layer_norm(x, weights, prefix, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * weights[prefix + ".weight"] + weights[prefix + ".bias"]


def linear(x, weights, prefix):
    return x @ weights[prefix + ".weight"].T + weights[prefix + ".bias"]


def gelu(x):
    return 0.5 * x * (1.0 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2.0)))


def softmax(x):
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def attention(x, weights, prefix, heads):
    """Self-attention of one text: x is [tokens, hidden]."""

    def split(name):
        projected = linear(x, weights, prefix + "self." + name)
        return projected.reshape(len(x), heads, -1).transpose(1, 0, 2)

    query, key, value = split("query"), split("key"), split("value")
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    context = (softmax(scores) @ value).transpose(1, 0, 2).reshape(len(x), -1)
    return linear(context, weights, prefix + "output.dense")


def embed(ids, weights, config):
    """The text's embedding, of length 1."""
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = layer_norm(x, weights, "embeddings.LayerNorm", epsilon)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        attended = attention(x, weights, prefix + "attention.", heads)
        x = layer_norm(x + attended, weights, prefix + "attention.output.LayerNorm", epsilon)
        inner = gelu(linear(x, weights, prefix + "intermediate.dense"))
        x = layer_norm(x + linear(inner, weights, prefix + "output.dense"), weights, prefix + "output.LayerNorm", epsilon)
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def reference(model_dir):
    config = json.loads((model_dir / "config.json").read_text())
    tensors = safetensors_file.read(model_dir / "model.safetensors")
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items() if tensor.dtype == np.float32}
    vocabulary = {token: i for i, token in enumerate((model_dir / "vocab.txt").read_text("utf-8").splitlines())}
    sets = {}
    for name, texts in json.loads(TEXTS.read_text("utf-8")).items():
        ids = [wordpiece.encode(text, vocabulary, MAX_LENGTH) for text in texts]
        embeddings = [[round(float(v), 9) for v in embed(row, weights, config)] for row in ids]
        sets[name] = {"texts": texts, "token_ids": ids, "embeddings": embeddings}
    return {"sets": sets}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(reference(Path(sys.argv[1]))))
