"""Trace settings as tritonclient reads and writes them.

usage: trace_settings_client.py http|grpc HOST:PORT
"""

import sys

import numpy as np
from tritonclient.utils import InferenceServerException

if sys.argv[1] == "http":
    import tritonclient.http as triton
else:
    import tritonclient.grpc as triton

ECHO = "echo.tar.gz"
DEFAULTS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "opentelemetry",
}


def plain(told):
    """The six settings of Triton, whichever way they came."""
    if not isinstance(told, dict):
        values = {name: list(value.value) for name, value in told.settings.items()}
        told = {name: value if name == "trace_level" else value[0] for name, value in values.items()}
    assert told["bsp_schedule_delay"] == "50" and told["url"].startswith("http://127.0.0.1:"), told
    return {name: told[name] for name in DEFAULTS}


def infer(client):
    given = triton.InferInput("X", [1], "FP32")
    given.set_data_from_numpy(np.array([1], np.float32))
    client.infer(ECHO, [given])


def expect(call, *parts):
    try:
        call()
    except InferenceServerException as error:
        text = f"{error.status()} {error.message()}"
        assert all(part in text for part in parts), text
        return
    raise AssertionError(f"an error was expected: {parts}")


def main(address):
    with triton.InferenceServerClient(address) as client:
        get = lambda model=None: plain(client.get_trace_settings(model_name=model))
        update = lambda settings, model=None: plain(client.update_trace_settings(model_name=model, settings=settings))
        assert get() == get(ECHO) == DEFAULTS, get()
        infer(client)
        changed = update({"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2"}, ECHO)
        expected = {**DEFAULTS, "trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2"}
        assert changed == get(ECHO) == expected and get() == DEFAULTS, changed
        for _ in range(8):
            infer(client)
        # What a model does not set itself, it takes over.
        assert update({"trace_rate": "7", "log_frequency": None}) == {**DEFAULTS, "trace_rate": "7"}
        assert get(ECHO) == expected
        cleared = update({"trace_rate": None, "trace_level": None}, ECHO)
        assert cleared == {**DEFAULTS, "trace_rate": "7", "trace_count": "2"}, cleared
        assert update({"trace_count": None}, ECHO)["trace_count"] == "-1"
        assert update({"trace_rate": None}) == get(ECHO) == DEFAULTS
        infer(client)
        status = lambda http, grpc: http if sys.argv[1] == "http" else grpc
        expect(lambda: update({"trace_level": ["LOUD"]}), status("400", "INVALID_ARGUMENT"), "Unable to parse 'trace_level'")
        expect(lambda: update({"trace_rate": "-1"}), status("400", "INVALID_ARGUMENT"), "Unable to parse 'trace_rate'")
        expect(lambda: update({"trace_file": "/tmp/t"}), status("501", "UNIMPLEMENTED"), "trace file location can not be updated")
        expect(lambda: get("nope.tar.gz"), status("404", "NOT_FOUND"), "nope.tar.gz")
        assert get() == DEFAULTS
    print("all right")


if __name__ == "__main__":
    main(sys.argv[2])
