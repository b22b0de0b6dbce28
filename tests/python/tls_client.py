"""One request of one kind of client over TLS; prints "answered", or "refused" and why.

usage: tls_client.py KIND HOST:PORT FOLDER
"""

import pathlib
import socket
import ssl
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http


def ask(triton, client):
    values = np.array([1.0, 2.0], np.float32)
    given = triton.InferInput("X", [2], "FP32")
    given.set_data_from_numpy(values)
    result = client.infer("echo.tar.gz", [given])
    assert (result.as_numpy("Y") == values).all()


def ask_http(address, folder, mutual=False, plain=False, root="root.pem"):
    options = {"ca_certs": str(folder / root)} | (
        {"certfile": str(folder / "client.pem"), "keyfile": str(folder / "client.key")} if mutual else {}
    )
    tls = {} if plain else {"ssl": True, "ssl_options": options}
    ask(tritonclient.http, tritonclient.http.InferenceServerClient(address, **tls))


def ask_grpc(address, folder, mutual=False, plain=False, root="root.pem"):
    own = {"private_key": str(folder / "client.key"), "certificate_chain": str(folder / "client.pem")} if mutual else {}
    tls = {} if plain else {"ssl": True, "root_certificates": str(folder / root)} | own
    ask(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(address, **tls))


def show_certificate(address):
    host, port = address.split(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain) as stream:
        assert stream.selected_alpn_protocol() == "h2", stream.selected_alpn_protocol()
        print(stream.getpeercert(binary_form=True).hex())


def main(kind, address, folder):
    if kind == "certificate":
        return show_certificate(address)
    protocol, _, how = kind.partition("-")
    call = {"http": ask_http, "grpc": ask_grpc}[protocol]
    # A server whose certificate is below another root: the client's own is none.
    variants = {"": {}, "mutual": {"mutual": True}, "plain": {"plain": True}, "strange": {"root": "client.pem"}}
    try:
        call(address, folder, **variants[how])
    except Exception as error:
        print("refused", type(error).__name__, error)
    else:
        print("answered")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
