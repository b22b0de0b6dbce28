"""tritonclient's asynchronous ways: `async_infer` of the blocking clients, and both asyncio clients.

usage: triton_asynchronous.py HTTP_ADDRESS GRPC_ADDRESS
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

ECHO, MISSING = "team/echo.tar.gz", "nope.tar.gz"
COUNT = 40


def given(module, number, name="X"):
    values = np.full([100], number, np.float32)
    return [module.InferInput(name, [100], "FP32").set_data_from_numpy(values)]


def check(result, number):
    values = result.as_numpy("Y")
    assert values.shape == (100,) and (values == number).all(), (number, values)


def check_http_futures(address):
    with over_http.InferenceServerClient(address, concurrency=8, network_timeout=60) as client:
        asked = [
            client.async_infer(MISSING if number == 5 else ECHO, given(over_http, number), request_id=str(number))
            for number in range(COUNT)
        ]
        for number, request in enumerate(asked):
            if number == 5:
                refused("404", request.get_result)
                continue
            result = request.get_result(timeout=60)
            check(result, number)
            assert result.get_response()["id"] == str(number)


def refused(status, call):
    try:
        call()
    except InferenceServerException as error:
        assert status in error.status() and MISSING in error.message(), error
    else:
        raise AssertionError(f"{MISSING} is not there")


def check_grpc_callbacks(address):
    with over_grpc.InferenceServerClient(address) as client:
        answers = queue.Queue()
        for number in range(COUNT):
            client.async_infer(
                MISSING if number == 5 else ECHO,
                given(over_grpc, number),
                callback=lambda result, error, number=number: answers.put((number, result, error)),
                compression_algorithm="gzip" if number % 2 else None,
            )
        heard = sorted((answers.get(timeout=60) for _ in range(COUNT)), key=lambda answer: answer[0])
        for expected, (number, result, error) in enumerate(heard):
            assert number == expected
            if number == 5:
                assert "NOT_FOUND" in error.status() and MISSING in error.message(), error
            else:
                assert error is None, error
                check(result, number)


async def awaits_refusal(status, what, part):
    try:
        await what
    except InferenceServerException as error:
        assert status in error.status() and part in error.message(), (error.status(), error.message())
    else:
        raise AssertionError(f"a status {status} was expected")


async def check_any_aio(module, client, compressed, statuses):
    """What both asyncio clients have in common."""
    assert await client.is_server_live() and await client.is_server_ready()
    results = await asyncio.gather(*(client.infer(ECHO, given(module, number)) for number in range(COUNT)))
    for number, result in enumerate(results):
        check(result, number)
    for options in compressed:
        check(await client.infer(ECHO, given(module, 7), request_id="seven", **options), 7)
    wanted = [module.InferRequestedOutput("Y")]
    target = {"x-amzn-sagemaker-target-model": ECHO}
    check(await client.infer("echo", given(module, 8), outputs=wanted, headers=target), 8)
    assert await client.is_model_ready(ECHO) and not await client.is_model_ready(MISSING)
    missing, wrong = statuses
    await awaits_refusal(missing, client.infer(MISSING, given(module, 1)), MISSING)
    await awaits_refusal(missing, client.get_model_metadata(MISSING), MISSING)
    await awaits_refusal(wrong, client.infer(ECHO, given(module, 1, "Z")), "Z")
    # One refused request among others takes none of them along.
    asked = [client.infer(MISSING if number == 3 else ECHO, given(module, number)) for number in range(8)]
    for number, result in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
        if number == 3:
            assert isinstance(result, InferenceServerException), result
        else:
            check(result, number)


async def check_control(client):
    """Loading, unloading and settings, alike over both protocols."""
    await client.unload_model(ECHO)
    assert not await client.is_model_ready(ECHO)
    await client.load_model(ECHO)
    assert await client.is_model_ready(ECHO)
    by_http = isinstance(client, over_http_aio.InferenceServerClient)
    await awaits_refusal("404" if by_http else "NOT_FOUND", client.load_model(MISSING), MISSING)
    for level in (1, 0):
        await client.update_log_settings({"log_verbose_level": level})
        assert await setting(client.get_log_settings(), "log_verbose_level") == level
    for rate in ("7", "1000"):
        await client.update_trace_settings(settings={"trace_rate": rate})
        assert await setting(client.get_trace_settings(), "trace_rate") == rate


async def setting(asked, name):
    """A setting's value, over HTTP or gRPC."""
    answer = await asked
    if isinstance(answer, dict):
        return answer[name]
    value = answer.settings[name]
    return value.value[0] if hasattr(value, "value") else getattr(value, value.WhichOneof("parameter_choice"))


async def check_http_aio(address):
    async with over_http_aio.InferenceServerClient(address, conn_timeout=60) as client:
        compressed = [
            {"request_compression_algorithm": request, "response_compression_algorithm": response}
            for request in (None, "gzip", "deflate")
            for response in (None, "gzip", "deflate")
        ]
        await check_any_aio(over_http_aio, client, compressed, ("404", "400"))
        assert (await client.get_server_metadata())["name"] == "panoply"
        assert (await client.get_model_metadata(ECHO))["name"] == ECHO
        assert (await client.get_model_config(ECHO))["backend"] == "identity"
        assert [line["name"] for line in await client.get_model_repository_index()] == [ECHO]
        [figures] = (await client.get_inference_statistics(ECHO))["model_stats"]
        assert figures["inference_count"] >= COUNT, figures
        await check_control(client)


async def check_grpc_aio(address):
    async with over_grpc_aio.InferenceServerClient(address) as client:
        compressed = [{"compression_algorithm": algorithm} for algorithm in (None, "gzip", "deflate")]
        await check_any_aio(over_grpc_aio, client, compressed, ("NOT_FOUND", "INVALID_ARGUMENT"))
        assert (await client.get_server_metadata()).name == "panoply"
        assert (await client.get_model_metadata(ECHO)).name == ECHO
        assert (await client.get_model_config(ECHO)).config.backend == "identity"
        assert [line.name for line in (await client.get_model_repository_index()).models] == [ECHO]
        [figures] = (await client.get_inference_statistics(ECHO)).model_stats
        assert figures.inference_count >= COUNT, figures
        await check_control(client)
        for algorithm in (None, "gzip", "deflate"):
            await check_stream(client, algorithm)


async def check_stream(client, algorithm):
    async def requests():
        for number in range(COUNT):
            name = MISSING if number == 5 else ECHO
            yield {"model_name": name, "inputs": given(over_grpc_aio, number), "request_id": str(number)}

    answers = client.stream_infer(requests(), stream_timeout=60, compression_algorithm=algorithm)
    heard = [answer async for answer in answers]
    assert len(heard) == COUNT
    for number, (result, error) in enumerate(heard):
        if number == 5:
            assert MISSING in error.message(), error
        else:
            assert error is None, error
            check(result, number)
            assert result.get_response().id == str(number)


if __name__ == "__main__":
    check_http_futures(sys.argv[1])
    check_grpc_callbacks(sys.argv[2])
    asyncio.run(check_http_aio(sys.argv[1]))
    asyncio.run(check_grpc_aio(sys.argv[2]))
    print("all right")
