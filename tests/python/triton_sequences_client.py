"""Talks to a server as people do who have sequences of requests: with tritonclient, over HTTP and over gRPC streams.

usage: triton_sequences_client.py HTTP_ADDRESS GRPC_ADDRESS NUMBERED NAMED

NUMBERED and NAMED are models that add up what they are given; the first wants numbers as correlation IDs, the second strings.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException


def inputs(client, x):
    tensor = client.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[x]], np.float32))
    return [tensor]


def check(result, total, start, end, name):
    np.testing.assert_array_equal(result.as_numpy("sum"), [[total]])
    np.testing.assert_array_equal(result.as_numpy("told"), [[start, end, 1]])
    expected = name.encode() if isinstance(name, str) else name
    assert result.as_numpy("name")[0][0] == expected, result.as_numpy("name")
    assert result.as_numpy("present") is None


def over_http(address, model, ids):
    """Sequences that take turns."""
    client = httpclient.InferenceServerClient(address)
    totals = dict.fromkeys(ids, 0)
    for turn in range(4):
        for number, name in enumerate(ids):
            x = 10 * number + turn
            totals[name] += x
            start, end = turn == 0, turn == 3
            result = client.infer(
                model, inputs(httpclient, x), sequence_id=name, sequence_start=start, sequence_end=end
            )
            check(result, totals[name], start, end, name)
    for arguments, text in [
        ({}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": ids[0]}, f"inference request for sequence {ids[0]} to model '"),
        ({"sequence_id": ids[0]}, "must specify the START flag on the first request of the sequence"),
    ]:
        try:
            client.infer(model, inputs(httpclient, 1), **arguments)
            raise AssertionError("it was answered")
        except InferenceServerException as error:
            assert text in error.message() and error.status() == "400", (error.status(), error.message())
    client.close()


def over_a_stream(address, model, ids):
    """Requests of several sequences, none of which waits for the answer to the one before."""
    client = grpcclient.InferenceServerClient(address)
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    try:
        for turn in range(20):
            for number, name in enumerate(ids):
                client.async_stream_infer(
                    model,
                    inputs(grpcclient, 10 * number + turn),
                    request_id=f"{number}-{turn}",
                    sequence_id=name,
                    sequence_start=turn == 0,
                    sequence_end=turn == 19,
                )
        totals = dict.fromkeys(ids, 0)
        for _ in range(20 * len(ids)):
            result, error = answers.get(timeout=60)
            assert error is None, error
            number, turn = map(int, result.get_response().id.split("-"))
            totals[ids[number]] += 10 * number + turn
            check(result, totals[ids[number]], turn == 0, turn == 19, ids[number])
        client.async_stream_infer(model, inputs(grpcclient, 1), sequence_id=ids[0])
        result, error = answers.get(timeout=60)
        assert result is None and "must specify the START flag" in error.message(), (result, error)
    finally:
        # Or a failure would wait for the stream's thread.
        client.stop_stream(cancel_requests=True)
        client.close()


def main(http, grpc, numbered, named):
    # The first request of each finds its model unloaded.
    over_a_stream(grpc, numbered, [7, 8, 2**63 - 1])
    over_http(http, named, ["a", "ü", "c" * 100])
    over_http(http, numbered, [1, 2, 3, 4, 2**64 - 1])
    over_a_stream(grpc, named, ["left", "right"])
    print("sequences work")


if __name__ == "__main__":
    main(*sys.argv[1:])
