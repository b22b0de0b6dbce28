"""Changes log settings with Triton's clients, and checks that they tell of the change.

usage: triton_logging.py http|grpc HOST:PORT SETTINGS_AS_JSON
"""

import json
import sys

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException


def plain(settings):
    """gRPC's settings, as HTTP has them."""
    return {name: next(iter(value.values()), None) for name, value in settings["settings"].items()}


def main(protocol, address, settings):
    if protocol == "http":
        client, read = triton_http.InferenceServerClient(address), lambda answer: answer
        get, update = client.get_log_settings, client.update_log_settings
    else:
        client, read = triton_grpc.InferenceServerClient(address), plain
        get = lambda: client.get_log_settings(as_json=True)
        update = lambda settings: client.update_log_settings(settings, as_json=True)
    before = read(get())
    assert set(before) >= {"log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}, before
    after = read(update(settings))
    assert {name: after[name] for name in settings} == settings, (after, settings)
    assert read(get()) == after
    try:
        update({"log_file": "elsewhere.log"})
    except InferenceServerException as error:
        assert "log file location can not be updated through network protocol" in error.message(), error
    else:
        raise AssertionError("log_file cannot be changed")
    client.close()
    print("all right")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
