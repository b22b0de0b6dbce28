"""What tritonclient.http sees.

usage: triton_client.py HOST:PORT target/panoply
"""

import json
import pathlib
import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TARGET = "X-Amzn-SageMaker-Target-Model"


def tensor(name, values, binary=True):
    given = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def check_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "panoply" and "binary_tensor_data" in metadata["extensions"], metadata
    model = client.get_model_metadata("profanity.tar.gz")
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}], model
    assert client.is_model_ready("profanity.tar.gz") and not client.is_model_ready("nope.tar.gz")
    config = client.get_model_config("profanity.tar.gz")
    assert (config["name"], config["max_batch_size"]) == ("profanity", 64), config
    assert [line["name"] for line in client.get_model_repository_index()] == ["profanity.tar.gz"]


def check_answers(client, artifacts):
    reference = json.loads((artifacts / "reference/minilm.json").read_text())["sets"]["batch"]
    texts = np.array([[text.encode()] for text in reference["texts"]], np.object_)
    expected = np.array(reference["embeddings"])
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("EMBEDDING", binary_data=binary)]
        result = client.infer("minilm.tar.gz", [tensor("TEXT", texts, binary)], outputs=wanted, request_id="r1")
        embeddings = result.as_numpy("EMBEDDING")
        assert embeddings.shape == (16, 384) and embeddings.dtype == np.float32
        assert ((embeddings * expected).sum(axis=1) > 0.9999).all()
        answer = result.get_response()
        assert (answer["model_name"], answer["id"]) == ("minilm.tar.gz", "r1"), answer
    # A model within the archive, by the header.
    ids = [tensor(name, np.array([[101, 7592, 102]])) for name in ("input_ids", "attention_mask", "token_type_ids")]
    ids[1:] = [tensor("attention_mask", np.ones((1, 3), np.int64)), tensor("token_type_ids", np.zeros((1, 3), np.int64))]
    hidden = client.infer("encoder", ids, headers={TARGET: "minilm.tar.gz"}).as_numpy("last_hidden_state")
    assert hidden.shape == (1, 3, 384) and np.isfinite(hidden).all()


def check_photo(client, artifacts):
    folder = artifacts / "demo-requests"
    pixels = (folder / "photo.body").read_bytes()[(folder / "photo.json").stat().st_size :]
    photo = np.frombuffer(pixels, np.float32).reshape(1, 3, 224, 224)
    probabilities = client.infer("mobilenet.tar.gz", [tensor("input", photo)]).as_numpy("probabilities")
    assert probabilities.shape == (1, 1001) and abs(probabilities.sum() - 1) < 1e-3
    best = [triton.InferRequestedOutput("probabilities", class_count=5)]
    classes = client.infer("mobilenet.tar.gz", [tensor("input", photo)], outputs=best).as_numpy("probabilities")
    first = classes.reshape(-1)[0].decode().split(":")
    assert first[2] == "espresso" and int(first[1]) == probabilities.argmax(), classes


def check_folders(client):
    values = np.array([1.0, 2.0], np.float32)
    # This client leaves the "/" of a model's name as it is.
    for version in ("", "1"):
        result = client.infer("team/echo.tar.gz", [tensor("X", values)], model_version=version)
        assert (result.as_numpy("Y") == values).all()
        assert client.get_model_config("team/echo.tar.gz", version)["name"] == "echo"
        assert client.is_model_ready("team/echo.tar.gz", version)
    result = client.infer("echo", [tensor("X", values)], headers={TARGET: "team/echo.tar.gz"})
    assert (result.as_numpy("Y") == values).all()


def expect(status, call, *parts):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == str(status), (error.status(), error.message())
        assert all(part in error.message() for part in parts), error.message()
        return
    raise AssertionError(f"a status {status} was expected")


def check_exceptions(client):
    values = np.array([1.0], np.float32)
    expect(404, lambda: client.infer("nope.tar.gz", [tensor("X", values)]), "nope.tar.gz")
    expect(404, lambda: client.get_model_metadata("nope.tar.gz"), "nope.tar.gz")
    target = {TARGET: "team/echo.tar.gz"}
    expect(400, lambda: client.infer("echo", [tensor("Z", values)], headers=target), "Z")
    expect(400, lambda: client.infer("echo", [tensor("X", values.astype(np.int64))], headers=target), "INT64", "FP32")
    expect(404, lambda: client.infer("ghost", [tensor("X", values)], headers=target), "ghost")
    expect(503, lambda: client.infer("huge.tar.gz", [tensor("X", values)]), "huge.tar.gz")


def main(address, artifacts):
    with triton.InferenceServerClient(address, network_timeout=60) as client:
        check_metadata(client)
        check_answers(client, artifacts)
        check_photo(client, artifacts)
        check_folders(client)
        check_exceptions(client)
    print("all right")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
