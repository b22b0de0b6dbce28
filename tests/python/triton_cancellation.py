"""tritonclient.grpc cancels calls in each of its ways. The model `spin` is busy for as many rounds as it is told to be;
what is cancelled ends there as well, or its one instance would never be free again.

usage: triton_cancellation.py GRPC_ADDRESS
"""

import asyncio
import queue
import sys
import time

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

MODEL = "spin.tar.gz"
# Days.
ENDLESS = 10**12
# By then a request has reached the server.
SENT = 0.5


def rounds(module, count):
    return [module.InferInput("rounds", [1], "INT64").set_data_from_numpy(np.array([count], np.int64))]


def check_free(client):
    began = time.monotonic()
    client.infer(MODEL, rounds(triton, 1), client_timeout=30)
    assert time.monotonic() - began < 10, "the model is free"


def check_futures(client):
    answers = queue.Queue()
    call = client.async_infer(MODEL, rounds(triton, ENDLESS), callback=lambda result, error: answers.put((result, error)))
    time.sleep(SENT)
    began = time.monotonic()
    call.cancel()
    result, error = answers.get(timeout=10)
    assert result is None and "CANCELLED" in error.status(), error
    assert time.monotonic() - began < 1, "nobody waits for the model"


def check_stream(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer(MODEL, rounds(triton, ENDLESS))
    time.sleep(SENT)
    client.stop_stream(cancel_requests=True)
    result, error = answers.get(timeout=10)
    assert result is None and "CANCELLED" in error.status(), error


async def check_asyncio(address):
    async with triton_aio.InferenceServerClient(address) as client:
        task = asyncio.create_task(client.infer(MODEL, rounds(triton_aio, ENDLESS)))
        await asyncio.sleep(SENT)
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended

        async def requests():
            yield {"model_name": MODEL, "inputs": rounds(triton_aio, ENDLESS)}
            await asyncio.sleep(60)

        stream = client.stream_infer(requests())
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(SENT)
        assert stream.cancel()
        [ended] = await asyncio.gather(reading, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


def check_deadline(client):
    try:
        client.infer(MODEL, rounds(triton, ENDLESS), client_timeout=SENT)
    except InferenceServerException as error:
        assert "DEADLINE_EXCEEDED" in error.status(), error
    else:
        raise AssertionError("it is longer than that")


def main(address):
    with triton.InferenceServerClient(address) as client:
        client.infer(MODEL, rounds(triton, 1))
        check_futures(client)
        check_free(client)
        check_stream(client)
        check_free(client)
        asyncio.run(check_asyncio(address))
        check_free(client)
        check_deadline(client)
        check_free(client)
    print("all right")


if __name__ == "__main__":
    main(sys.argv[1])
