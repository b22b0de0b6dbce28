#!/usr/bin/env python3
"""Writes alt-profanity-check's classifier (scikit-learn: bag of words, linear SVM with calibrated probabilities) as ONNX.

usage: build_profanity.py DATA_DIR OUT.onnx      (DATA_DIR holds vectorizer.joblib and model.joblib)

Input   text: STRING [N, 1]
Outputs label: INT64 [N] (1: offensive), probabilities: FLOAT [N, 2]
"""
import sys
import warnings
from pathlib import Path

import joblib
from onnx import helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.pipeline import Pipeline


def set_locale(model, locale):
    """Makes every StringNormalizer lower text by `locale`: the default, en_US, is missing on slim machines."""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("locale", locale)])


def build(data):
    steps = [(name, joblib.load(data / f"{name}.joblib")) for name in ("vectorizer", "model")]
    inputs = [("text", StringTensorType([None, 1]))]
    model = to_onnx(Pipeline(steps), initial_types=inputs, options={"zipmap": False}, target_opset=17)
    set_locale(model, "C.UTF-8")
    return model


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    Path(sys.argv[2]).write_bytes(build(Path(sys.argv[1])).SerializeToString())
