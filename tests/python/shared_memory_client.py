"""Shared memory as tritonclient uses it, over HTTP or gRPC.

usage: shared_memory_client.py http|grpc HOST:PORT
"""

import base64
import os
import sys

import numpy as np
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

if sys.argv[1] == "http":
    import tritonclient.http as triton
else:
    import tritonclient.grpc as triton

ECHO = "echo.tar.gz"
WORDS = "words.tar.gz"


class Region:
    """An object of its own, registered."""

    def __init__(self, client, name, size, offset=0, register=True):
        self.client, self.name, self.key = client, name, f"/panoply-{os.getpid()}-{name}"
        self.handle = shm.create_shared_memory_region(name, self.key, size)
        if register:
            client.register_system_shared_memory(name, self.key, size - offset, offset)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.unregister_system_shared_memory(self.name)
        shm.destroy_shared_memory_region(self.handle)


def expect(call, *parts):
    try:
        call()
    except InferenceServerException as error:
        text = f"{error.status()} {error.message()}"
        assert all(part in text for part in parts), text
        return
    raise AssertionError(f"an error was expected: {parts}")


def shared_input(name, shape, datatype, region, size, offset=0):
    given = triton.InferInput(name, shape, datatype)
    given.set_shared_memory(region, size, offset=offset)
    return given


def shared_output(name, region, size, offset=0):
    wanted = triton.InferRequestedOutput(name)
    wanted.set_shared_memory(region, size, offset=offset)
    return wanted


def status(client):
    """Regions by name: key, offset, size."""
    told = client.get_system_shared_memory_status()
    if isinstance(told, list):
        return {one["name"]: (one["key"], one["offset"], one["byte_size"]) for one in told}
    return {name: (one.key, one.offset, one.byte_size) for name, one in told.regions.items()}


def check_answer(result, output, region, offset, size):
    """The answer tells of the output, and does not carry it."""
    told = result.get_output(output)
    if isinstance(told, dict):
        assert set(told) == {"name", "datatype", "shape"}, told
        return
    told = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in told.parameters.items()}
    expected = {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size}
    assert told == expected, told


def check_status(client):
    assert status(client) == {}
    with Region(client, "one", 128) as one, Region(client, "two", 4096, offset=64) as two:
        assert status(client) == {"one": (one.key, 0, 128), "two": (two.key, 64, 4032)}
        assert len(client.get_system_shared_memory_status("two")) == 1 if sys.argv[1] == "http" else True
        again = lambda: client.register_system_shared_memory("one", one.key, 128)
        expect(again, "shared memory region 'one' already in manager")
        beyond = lambda: client.register_system_shared_memory("three", one.key, 1 << 20)
        expect(beyond, "failed to register shared memory region 'three': invalid args")
        missing = lambda: client.register_system_shared_memory("three", "/panoply-none", 1)
        expect(missing, "Unable to open shared memory region: '/panoply-none'")
        expect(lambda: client.get_system_shared_memory_status("three"), "Unable to find system shared memory region: 'three'")
        client.unregister_system_shared_memory("three")
        client.unregister_system_shared_memory()
        assert status(client) == {}


def check_tensors(client):
    values = np.arange(150_000, dtype=np.float32)
    size = values.nbytes
    with Region(client, "in", size + 64) as given, Region(client, "out", size + 16) as taken:
        shm.set_shared_memory_region(given.handle, [values], offset=64)
        inputs = [shared_input("X", [len(values)], "FP32", "in", size, offset=64)]
        result = client.infer(ECHO, inputs, outputs=[shared_output("Y", "out", size + 8, offset=8)])
        assert (shm.get_contents_as_numpy(taken.handle, np.float32, [len(values)], offset=8) == values).all()
        check_answer(result, "Y", "out", 8, size)
        # The input alone, and the output alone.
        assert (client.infer(ECHO, inputs).as_numpy("Y") == values).all()
        direct = triton.InferInput("X", [2], "FP32")
        direct.set_data_from_numpy(np.array([7, 8], np.float32))
        client.infer(ECHO, [direct], outputs=[shared_output("Y", "out", 8)])
        assert list(shm.get_contents_as_numpy(taken.handle, np.float32, [2])) == [7, 8]


def check_strings(client):
    words = np.array([b"one", b"", "zwei \u00e9".encode()], np.object_)
    serialized = serialize_byte_tensor(words)
    size = len(serialized.item())
    with Region(client, "words", 4096) as region:
        shm.set_shared_memory_region(region.handle, [serialized])
        inputs = [shared_input("X", [3], "BYTES", "words", size)]
        client.infer(WORDS, inputs, outputs=[shared_output("Y", "words", 1024, offset=2048)])
        assert list(shm.get_contents_as_numpy(region.handle, np.object_, [3], offset=2048)) == list(words)
        # What the client wrote is no such tensor.
        expect(lambda: client.infer(WORDS, [shared_input("X", [4], "BYTES", "words", size)]), "input 'X'", "BYTES data")


def check_refusals(client):
    with Region(client, "r", 64) as region:
        infer = lambda inputs, outputs=None: client.infer(ECHO, inputs, outputs=outputs)
        two = shared_input("X", [2], "FP32", "r", 8)
        expect(lambda: infer([shared_input("X", [2], "FP32", "nope", 8)]), "Unable to find shared memory region: 'nope'")
        expect(lambda: infer([shared_input("X", [2], "FP32", "r", 8, offset=64)]), "Invalid offset for shared memory region: 'r'")
        expect(lambda: infer([shared_input("X", [32], "FP32", "r", 128)]), "Invalid offset + byte size for shared memory region: 'r'")
        expect(lambda: infer([shared_input("X", [3], "FP32", "r", 8)]), "input 'X'", "got 8 bytes of data, expected 12")
        expect(lambda: infer([two], [shared_output("Y", "nope", 8)]), "Unable to find shared memory region: 'nope'")
        small = "shared memory size specified with the request for output 'Y' (4 bytes) should be at least 8 bytes"
        expect(lambda: infer([two], [shared_output("Y", "r", 4)]), small)
        # The client takes its memory away: the request fails, and nothing else.
        os.truncate(f"/dev/shm{region.key}", 4)
        expect(lambda: infer([two]), "the client's object is not as it was registered")
        assert client.is_server_live()


def check_cuda(client, has_gpus):
    """Mostly without a CUDA driver; what can be had of one is tested elsewhere."""
    handle = base64.b64encode(b"\0" * 64)
    assert not cuda_status(client)
    register = lambda: client.register_cuda_shared_memory("c", handle, 0, 64)
    if has_gpus:
        expect(register, "failed to register shared memory region: invalid args")
    else:
        missing = "failed to register CUDA shared memory region: 'c', GPUs not supported: the CUDA driver"
        expect(register, "501" if sys.argv[1] == "http" else "UNIMPLEMENTED", missing)
    expect(lambda: client.get_cuda_shared_memory_status("c"), "Unable to find cuda shared memory region: 'c'")
    client.unregister_cuda_shared_memory("c")
    client.unregister_cuda_shared_memory()


def cuda_status(client):
    """Regions by name: GPU, size."""
    told = client.get_cuda_shared_memory_status()
    if isinstance(told, list):
        return {one["name"]: (one["device_id"], one["byte_size"]) for one in told}
    return {name: (one.device_id, one.byte_size) for name, one in told.regions.items()}


def main(address):
    with triton.InferenceServerClient(address) as client:
        told = client.get_server_metadata()
        extensions = told["extensions"] if isinstance(told, dict) else told.extensions
        assert "system_shared_memory" in extensions, told
        check_status(client)
        check_tensors(client)
        check_strings(client)
        check_refusals(client)
        check_cuda(client, "cuda_shared_memory" in extensions)
        assert status(client) == {}
    print("all right")


if __name__ == "__main__":
    main(sys.argv[2])
