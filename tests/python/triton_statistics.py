"""What tritonclient tells of models' statistics, over HTTP and gRPC.

usage: triton_statistics.py HTTP_ADDRESS GRPC_ADDRESS
"""

import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException

TARGET = "pipeline.tar.gz"
HEADER = {"x-amzn-sagemaker-target-model": TARGET}
TIMES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


def refused(call, status):
    try:
        call()
    except InferenceServerException as error:
        assert status in error.status(), (error, error.status())
    else:
        raise AssertionError(f"not refused with {status}")


def infer(module, client, rows):
    tensor = module.InferInput("X", [rows, 2], "FP32")
    tensor.set_data_from_numpy(np.zeros([rows, 2], np.float32))
    client.infer(TARGET, [tensor])


def plain(answer):
    """Figures alike whatever protocol they came over: JSON over gRPC leaves out zeros, and has 64-bit numbers as text."""
    models = {}
    for model in answer.get("model_stats", []):
        inference = model["inference_stats"]
        figures = {name: timed(inference.get(name, {})) for name in TIMES}
        batches = {int(batch["batch_size"]): timed(batch["compute_infer"])[0] for batch in model.get("batch_stats", [])}
        memory = [(of["type"], int(of["byte_size"])) for of in model.get("memory_usage", [])]
        counts = [int(model.get(name, 0)) for name in ("inference_count", "execution_count", "last_inference")]
        models[model["name"]] = (figures, batches, memory, counts)
        assert model["version"] == "1", model
    return models


def timed(of):
    return int(of.get("count", 0)), int(of.get("ns", 0))


def main(http_address, grpc_address):
    http, grpc = over_http.InferenceServerClient(http_address), over_grpc.InferenceServerClient(grpc_address)

    def statistics(*name, **options):
        answers = plain(http.get_inference_statistics(*name, **options))
        over = plain(grpc.get_inference_statistics(*name, as_json=True, **options))
        assert answers == over, (answers, over)
        assert list(answers) == list(over), "in the same order"
        return answers

    assert statistics() == {}
    refused(lambda: http.get_inference_statistics(TARGET), "404")
    refused(lambda: grpc.get_inference_statistics(TARGET), "NOT_FOUND")
    assert not http.is_model_ready(TARGET), "asking for statistics loads nothing"

    infer(over_http, http, 1)
    infer(over_grpc, grpc, 2)
    infer(over_http, http, 2)
    refused(lambda: infer(over_http, http, 9), "400")
    models = statistics()
    assert list(models) == [TARGET, "first", "second"], list(models)
    for name, (figures, batches, memory, counts) in models.items():
        assert counts[:2] == [5, 3] and counts[2] > 1.7e12, (name, counts)
        assert batches == {1: 1, 2: 2}, (name, batches)
        assert memory == ([] if name == TARGET else [("CPU", 4096)]), (name, memory)
        for time in TIMES:
            count, ns = figures[time]
            expected = {"fail": int(name == TARGET), "cache_hit": 0, "cache_miss": 0}.get(time, 3)
            assert count == expected, (name, time, count)
            assert ns > 0 if time in ("success", "queue") else True, (name, time)
        assert figures["success"][1] >= figures["queue"][1] + figures["compute_infer"][1] // 2, (name, figures)

    assert statistics(TARGET) == models and list(statistics(TARGET))[0] == TARGET
    assert statistics(TARGET, "1") == {TARGET: models[TARGET]}
    assert statistics("first") == {"first": models["first"]}, "a composing model by its own name"
    assert statistics(TARGET + "/first") == {TARGET + "/first": models["first"]}
    inside = statistics(headers=HEADER)
    assert list(inside) == ["pipeline", "first", "second"] and inside["pipeline"] == models[TARGET], inside
    assert statistics("second", headers=HEADER) == {"second": models["second"]}
    refused(lambda: http.get_inference_statistics(TARGET, "7"), "404")
    refused(lambda: grpc.get_inference_statistics("nope"), "NOT_FOUND")

    # A composing model can be looked at by its own name, as load generators do, and not called.
    assert http.get_model_config("second")["name"] == "second"
    assert grpc.get_model_config("first").config.max_batch_size == 8
    assert http.get_model_metadata("first", headers=HEADER)["inputs"][0]["name"] == "X"
    tensor = over_http.InferInput("X", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.zeros([1, 2], np.float32))
    refused(lambda: http.infer("first", [tensor]), "404")
    print("all right")


if __name__ == "__main__":
    main(*sys.argv[1:])
