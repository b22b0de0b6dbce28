"""What tritonclient.http sees when it compresses, and asks for compressed answers.

usage: triton_compression.py HOST:PORT
"""

import asyncio
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ALGORITHMS = (None, "gzip", "deflate")


def tensor(name, values, binary=True):
    given = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def check_sync(address):
    numbers = np.arange(150_000, dtype=np.float32) % 7
    texts = np.array([f"text {number}".encode() for number in range(3000)], np.object_)
    with triton.InferenceServerClient(address, network_timeout=60) as client:
        for request in ALGORITHMS:
            for response in ALGORITHMS:
                for model, values, binary in (
                    ("team/echo.tar.gz", numbers, True),
                    ("team/echo.tar.gz", numbers[:2000], False),
                    ("text.tar.gz", texts, True),
                    ("text.tar.gz", texts, False),
                ):
                    result = client.infer(
                        model,
                        [tensor("X", values, binary)],
                        outputs=[triton.InferRequestedOutput("Y", binary_data=binary)],
                        request_compression_algorithm=request,
                        response_compression_algorithm=response,
                    )
                    # Of JSON this client makes strings.
                    expected = values if binary or values.dtype != np.object_ else values.astype(str)
                    assert (result.as_numpy("Y") == expected).all(), (model, request, response, binary)
        try:
            client.infer("team/echo.tar.gz", [tensor("X", numbers)], headers={"Content-Encoding": "br"})
        except InferenceServerException as error:
            assert error.status() == "415", error
        else:
            raise AssertionError("br is not known")


async def check_asyncio(address):
    numbers = np.arange(20_000, dtype=np.float32) % 5
    async with triton_aio.InferenceServerClient(address) as client:
        for algorithm in ALGORITHMS:
            result = await client.infer(
                "team/echo.tar.gz",
                [tensor("X", numbers)],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert (result.as_numpy("Y") == numbers).all(), algorithm


if __name__ == "__main__":
    check_sync(sys.argv[1])
    asyncio.run(check_asyncio(sys.argv[1]))
    print("all right")
