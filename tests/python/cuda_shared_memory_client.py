"""Memory of GPUs as tritonclient registers it, with the driver of tests/driver, for which a POSIX object is such memory.

usage: cuda_shared_memory_client.py http|grpc HOST:PORT
"""

import base64
import os
import sys

import numpy as np
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

if sys.argv[1] == "http":
    import tritonclient.http as triton
else:
    import tritonclient.grpc as triton

ECHO = "echo.tar.gz"


class Allocation:
    """Memory on a GPU of the tests, and the handle that exports it."""

    def __init__(self, name, gpu, size):
        key = f"/panoply-cuda-{os.getpid()}-{name}"
        self.memory = shm.create_shared_memory_region(name, key, size)
        self.handle = base64.b64encode((bytes([gpu]) + key.encode()).ljust(64, b"\0"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shm.destroy_shared_memory_region(self.memory)


def expect(call, part):
    try:
        call()
    except InferenceServerException as error:
        assert part in error.message(), error.message()
        return
    raise AssertionError(f"an error was expected: {part}")


def status(client):
    """Regions by name: GPU, size."""
    told = client.get_cuda_shared_memory_status()
    if isinstance(told, list):
        return {one["name"]: (one["device_id"], one["byte_size"]) for one in told}
    return {name: (one.device_id, one.byte_size) for name, one in told.regions.items()}


def infer(client, elements, given, taken):
    """Input and output as (region, bytes, offset)."""
    tensor = triton.InferInput("X", [elements], "FP32")
    tensor.set_shared_memory(given[0], given[1], offset=given[2])
    output = triton.InferRequestedOutput("Y")
    output.set_shared_memory(taken[0], taken[1], offset=taken[2])
    return client.infer(ECHO, [tensor], outputs=[output])


def check(client):
    values = np.arange(50_000, dtype=np.float32)
    size = values.nbytes
    with Allocation("in", 0, size + 64) as given, Allocation("out", 1, size + 16) as taken:
        client.register_cuda_shared_memory("in", given.handle, 0, size + 64)
        client.register_cuda_shared_memory("out", taken.handle, 1, size + 8)
        assert status(client) == {"in": (0, size + 64), "out": (1, size + 8)}, status(client)
        shm.set_shared_memory_region(given.memory, [values], offset=64)
        infer(client, len(values), ("in", size, 64), ("out", size, 8))
        assert (shm.get_contents_as_numpy(taken.memory, np.float32, [len(values)], offset=8) == values).all()
        two = ("in", 8, 64)
        beyond = lambda: infer(client, 2, two, ("out", 16, size))
        expect(beyond, "Invalid offset + byte size for shared memory region: 'out'")
        expect(lambda: infer(client, 2, ("in", 8, size + 64), two), "Invalid offset for shared memory region: 'in'")

        register = client.register_cuda_shared_memory
        refused = "failed to register shared memory region: invalid args: region 'r': "
        expect(lambda: register("r", given.handle, 1, 8), refused + "the CUDA driver knows no memory")
        expect(lambda: register("r", given.handle, 2, 8), refused + "there is no GPU with the device_id 2; this machine has 2")
        expect(lambda: register("r", base64.b64encode(b"\0" * 64), 0, 8), "CUDA_ERROR_INVALID_VALUE, invalid argument")
        # Opened, found too small, and closed.
        too_large = lambda: register("r", given.handle, 0, size + 65)
        expect(too_large, "failed to register shared memory region 'r': invalid args: byte_size")
        expect(lambda: register("in", given.handle, 0, 8), "shared memory region 'in' already in manager")
        client.unregister_cuda_shared_memory("in")
        expect(lambda: infer(client, 2, two, ("out", 8, 0)), "Unable to find shared memory region: 'in'")
        client.unregister_cuda_shared_memory()
        assert status(client) == {}


def main(address):
    with triton.InferenceServerClient(address) as client:
        told = client.get_server_metadata()
        assert "cuda_shared_memory" in (told["extensions"] if isinstance(told, dict) else told.extensions), told
        check(client)
    print("all right")


if __name__ == "__main__":
    main(sys.argv[2])
