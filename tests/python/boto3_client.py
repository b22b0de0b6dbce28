"""What boto3's sagemaker-runtime client sees.

usage: boto3_client.py HOST:PORT target/panoply
"""

import json
import pathlib
import sys

import boto3
import botocore.config
import botocore.exceptions
import numpy as np

BINARY = "application/vnd.sagemaker-triton.binary+json"


def make_client(address):
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://{address}",
        region_name="us-east-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=botocore.config.Config(retries={"max_attempts": 0}, proxies={}),
    )


def invoke(client, target, inputs, **options):
    body = json.dumps({"inputs": inputs})
    options.setdefault("ContentType", "application/json")
    return client.invoke_endpoint(EndpointName="my-endpoint", TargetModel=target, Body=body, **options)


def outputs(response):
    return {output["name"]: output for output in json.loads(response["Body"].read())["outputs"]}


def fp32(name, values):
    return {"name": name, "datatype": "FP32", "shape": [len(values)], "data": values}


def check_answers(client, artifacts):
    reference = json.loads((artifacts / "reference/minilm.json").read_text())["sets"]["demo"]
    text = {"name": "TEXT", "datatype": "BYTES", "shape": [2, 1], "data": reference["texts"]}
    response = invoke(client, "minilm.tar.gz", [text], CustomAttributes="trace=9", TargetVariant="v1", InferenceId="i-1")
    assert response["ContentType"] == "application/json", response
    assert response["InvokedProductionVariant"] == "v1", response
    assert response["CustomAttributes"] == "trace=9", response
    assert response["ResponseMetadata"]["RequestId"], response
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-panoply-cache"] == "store", response
    embeddings = np.array(outputs(response)["EMBEDDING"]["data"]).reshape(2, 384)
    cosines = (embeddings * np.array(reference["embeddings"])).sum(axis=1)
    assert (cosines > 0.9999).all(), cosines
    # Any content type, or none, is JSON unless it says that it is binary.
    for options in ({"ContentType": "application/octet-stream"}, {"Accept": "application/json"}):
        response = invoke(client, "team/echo.tar.gz", [fp32("X", [1.5, 2.5])], **options)
        assert outputs(response)["Y"]["data"] == [1.5, 2.5]


def check_binary(client):
    values = np.array([1.0, -1.0, 0.5], np.float32)
    tensor = {"name": "X", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": values.nbytes}}
    header = json.dumps({"inputs": [tensor]}).encode()
    response = client.invoke_endpoint(
        EndpointName="my-endpoint",
        TargetModel="team/echo.tar.gz",
        ContentType=f"{BINARY};json-header-size={len(header)}",
        Accept=BINARY,
        Body=header + values.tobytes(),
    )
    kind, _, length = response["ContentType"].partition(";json-header-size=")
    assert kind == BINARY, response
    body = response["Body"].read()
    answered = json.loads(body[: int(length)])
    assert answered["outputs"][0]["shape"] == [3], answered
    assert (np.frombuffer(body[int(length) :], np.float32) == values).all()


def expect(exception, call, *parts):
    try:
        call()
    except exception as error:
        message = error.response["Error"]["Message"]
        assert all(part in message for part in parts), message
        return error
    raise AssertionError(f"{exception} was expected")


def check_exceptions(client):
    good = [fp32("X", [1.0])]
    exceptions = client.exceptions
    expect(exceptions.ValidationError, lambda: invoke(client, "nope.tar.gz", good), "nope.tar.gz")
    expect(exceptions.ValidationError, lambda: invoke(client, "team/echo.tar.gz", [fp32("Z", [1.0])]), "Z")
    expect(exceptions.ServiceUnavailable, lambda: invoke(client, "huge.tar.gz", good), "huge.tar.gz", "--model-memory")
    shape = {"name": "shape", "datatype": "INT64", "shape": [1], "data": [7]}
    error = expect(exceptions.ModelError, lambda: invoke(client, "reshape.tar.gz", [fp32("x", [1.0]), shape]), "reshape")
    assert error.response["OriginalStatusCode"] >= 400, error.response
    assert error.response["OriginalMessage"], error.response
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 424, error.response
    call = lambda: client.invoke_endpoint_async(EndpointName="e", InputLocation="s3://bucket/key")
    error = expect(botocore.exceptions.ClientError, call, "not supported")
    assert error.response["Error"]["Code"] == "ValidationError", error.response


def stream(client, component, inputs, **options):
    body = json.dumps({"inputs": inputs})
    response = client.invoke_endpoint_with_response_stream(
        EndpointName="my-endpoint", InferenceComponentName=component, Body=body, **options
    )
    return response, response["Body"]


def repeat(values, delays):
    shape = [len(values)]
    return [
        {"name": "IN", "datatype": "INT32", "shape": shape, "data": values},
        {"name": "DELAY", "datatype": "UINT32", "shape": [len(delays)], "data": delays},
        {"name": "WAIT", "datatype": "UINT32", "shape": [1], "data": [0]},
    ]


def check_streams(client):
    response, body = stream(client, "repeat.tar.gz", repeat([5, 6, 7], [0, 0, 0]), ContentType="application/json")
    assert response["ContentType"] == "application/jsonlines", response
    answers = [json.loads(event["PayloadPart"]["Bytes"]) for event in body]
    assert [answer["outputs"][0]["data"] for answer in answers] == [[5], [6], [7]], answers
    assert [answer["outputs"][1]["data"] for answer in answers] == [[0], [1], [2]], answers
    # No response at all, and a model that answers once.
    assert list(stream(client, "repeat.tar.gz", repeat([], []))[1]) == []
    _, body = stream(client, "reshape.tar.gz", [fp32("x", [1.0, 2.0]), int64("shape", [2])])
    assert len([json.loads(event["PayloadPart"]["Bytes"]) for event in body]) == 1
    # Binary outputs, behind the JSON that describes them.
    response, body = stream(client, "repeat.tar.gz", repeat([9], [0]), Accept=BINARY)
    kind, _, length = response["ContentType"].partition(";json-header-size=")
    [event] = list(body)
    tensors = event["PayloadPart"]["Bytes"][int(length) :]
    assert kind == BINARY and list(np.frombuffer(tensors, np.int32)) == [9, 0], response
    # Failures: before the first response as ever, after it as an exception within the stream.
    exceptions = client.exceptions
    expect(exceptions.ValidationError, lambda: stream(client, "nope.tar.gz", []), "nope.tar.gz")
    expect(exceptions.ModelError, lambda: stream(client, "reshape.tar.gz", [fp32("x", [1.0]), int64("shape", [7])]), "reshape")
    _, body = stream(client, "impatient.tar.gz", repeat([1, 2], [0, 5000]))
    events = iter(body)
    assert json.loads(next(events)["PayloadPart"]["Bytes"])["outputs"][0]["data"] == [1]
    error = expect(botocore.exceptions.EventStreamError, lambda: next(events), "took longer")
    assert error.response["Error"]["Code"] == "ModelStreamError", error.response


def int64(name, values):
    return {"name": name, "datatype": "INT64", "shape": [len(values)], "data": values}


def main(address, artifacts):
    client = make_client(address)
    check_answers(client, artifacts)
    check_binary(client)
    check_exceptions(client)
    check_streams(client)
    print("all right")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
