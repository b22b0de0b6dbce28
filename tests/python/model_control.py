"""Loading and unloading by name with tritonclient, over HTTP or gRPC.

usage: model_control.py http|grpc HOST:PORT targets|explicit|refused FOLDER
"""

import importlib
import json
import pathlib
import sys
import time

import numpy as np
from tritonclient.utils import InferenceServerException

UNKNOWN = "failed to load '{}', failed to poll from model repository"


def config(output, **more):
    """An `identity` model that answers under the name `output`."""
    tensor = {"data_type": "TYPE_FP32", "dims": [-1]}
    return json.dumps({"backend": "identity", "input": [{"name": "X", **tensor}], "output": [{"name": output, **tensor}], **more})


def answer(triton, client, model, output):
    given = triton.InferInput("X", [2], "FP32")
    given.set_data_from_numpy(np.array([1.5, 2.5], np.float32))
    values = client.infer(model, [given]).as_numpy(output)
    assert values is not None and values.tolist() == [1.5, 2.5], (model, output, values)


def index(client):
    lines = client.get_model_repository_index()
    lines = lines if isinstance(lines, list) else [
        {field: getattr(line, field) for field in ("name", "version", "state", "reason") if getattr(line, field)}
        for line in lines.models
    ]
    return {line["name"]: line for line in lines}


def fails(call, *parts):
    try:
        call()
    except InferenceServerException as error:
        assert all(part in error.message() for part in parts), (parts, error.message())
        return error.status()
    raise AssertionError(f"{parts}: nothing failed")


def until(what, holds):
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within 20 s")


def targets(triton, client, folder):
    assert index(client) == {}
    client.load_model("echo.tar.gz")
    assert client.is_model_ready("echo.tar.gz") and index(client)["echo.tar.gz"]["state"] == "READY"
    client.load_model("team/echo.tar.gz")
    answer(triton, client, "echo.tar.gz", "Y")
    client.unload_model("echo.tar.gz")
    assert not client.is_model_ready("echo.tar.gz")
    answer(triton, client, "echo.tar.gz", "Y")
    client.load_model("echo.tar.gz", config=config("OVERRIDDEN"))
    answer(triton, client, "echo.tar.gz", "OVERRIDDEN")
    client.load_model("given.tar.gz", config=config("GIVEN"), files={"file:1/notes.txt": b"text"})
    answer(triton, client, "given.tar.gz", "GIVEN")
    client.unload_model("given.tar.gz")
    fails(lambda: client.load_model("given.tar.gz"), UNKNOWN.format("given.tar.gz"))
    client.load_model("echo.tar.gz")
    answer(triton, client, "echo.tar.gz", "Y")
    status = fails(lambda: client.load_model("broken.tar.gz"), "load failed for model 'broken.tar.gz': ", "max_batchsize")
    assert status in ("400", "StatusCode.INVALID_ARGUMENT"), status
    status = fails(lambda: client.load_model("nope.tar.gz"), UNKNOWN.format("nope.tar.gz"))
    assert status in ("404", "StatusCode.NOT_FOUND"), status
    fails(lambda: client.load_model("echo.tar.gz", files={"file:1/x": b"x"}), UNKNOWN.format("echo.tar.gz"), "config")
    client.unload_model("nope.tar.gz", unload_dependents=True)
    assert "model_repository" in str(client.get_server_metadata())


def explicit(triton, client, folder):
    assert index(client) == {"echo": {"name": "echo"}, "other": {"name": "other"}, "whole": {"name": "whole"}}, index(client)
    assert not client.is_model_ready("whole")
    client.load_model("whole")
    assert client.is_model_ready("whole") and client.is_model_ready("echo") and not client.is_model_ready("other")
    answer(triton, client, "whole", "Z")
    client.unload_model("echo")
    assert not client.is_model_ready("whole")
    status = fails(lambda: answer(triton, client, "whole", "Z"), "unknown model: 'whole' has no available versions")
    assert status in ("404", "StatusCode.UNAVAILABLE"), status
    ended = {"name": "echo", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    until("the end of echo", lambda: index(client)["echo"] == ended)
    client.load_model("echo")
    answer(triton, client, "whole", "Z")
    client.unload_model("whole", unload_dependents=True)
    until("the end of whole", lambda: index(client)["whole"].get("reason") == "unloaded")
    assert client.is_model_ready("echo"), "it was loaded by name"
    client.load_model("echo", config=config("OVERRIDDEN"))
    answer(triton, client, "echo", "OVERRIDDEN")
    assert [output["name"] for output in outputs(client, "echo")] == ["OVERRIDDEN"]
    fails(lambda: client.load_model("given", files={"file:1/x": b"x"}), UNKNOWN.format("given"))
    client.load_model("given", config=config("GIVEN"), files={"file:3/x": b"x"})
    answer(triton, client, "given", "GIVEN")
    assert index(client)["given"] == {"name": "given", "version": "3", "state": "READY"}
    client.load_model("echo")
    answer(triton, client, "echo", "Y")
    status = fails(lambda: client.load_model("nope"), UNKNOWN.format("nope"))
    assert status in ("404", "StatusCode.NOT_FOUND"), status
    client.unload_model("nope")
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / "config.pbtxt").write_text("max_batchsize: 1")
    status = fails(lambda: client.load_model("broken"), "load failed for model 'broken': ", "max_batchsize")
    assert status in ("400", "StatusCode.INVALID_ARGUMENT"), status
    assert "max_batchsize" in index(client)["broken"]["reason"]


def outputs(client, model):
    metadata = client.get_model_metadata(model)
    if isinstance(metadata, dict):
        return metadata["outputs"]
    return [{"name": output.name} for output in metadata.outputs]


def refused(triton, client, folder):
    answer(triton, client, "echo", "Y")
    for call in (client.load_model, client.unload_model):
        fails(lambda: call("echo"), "explicit model load / unload is not allowed if polling is enabled")


def main():
    protocol, address, scenario, folder = sys.argv[1:]
    triton = importlib.import_module(f"tritonclient.{protocol}")
    client = triton.InferenceServerClient(address)
    globals()[scenario](triton, client, pathlib.Path(folder))
    client.close()
    print("all right")


main()
