"""A store that fails: busy, connections reset, answers lost or cut; and nothing is lost by it."""

import http.client
import importlib.util
import re
import socket
import struct
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pytest
import servers

from tomoseg.core.blocks import Box
from tomoseg.io.stores import Folder, Volume, fingerprint, open_file
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from

if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto")):
    pytest.skip("s3fs or moto is not installed", allow_module_level=True)

# Everything but these is the same bytes from run to run.
TIMED = (".json", "/begun", "index.html", "recipe.yaml")
BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ServiceUnavailable</Code>'
    b"<Message>Please try again.</Message></Error>"
)
FAULTS = ("busy", "reset", "lost answer", "cut answer")
"""503; a connection reset before the server hears of it, after it did it, amid its answer."""


class FaultyProxy(ThreadingHTTPServer):
    """Hands requests on to a server, but for those whose fate is a fault.

    ``fate`` is asked with a request and how often it came; it is the same whatever else is under
    way.
    """

    daemon_threads = True

    def __init__(self, server):
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_place = urlsplit(server).netloc
        self.fate = lambda request, times: None
        self.seen = Counter()
        self.injected = Counter()
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, request):
        with self._lock:
            self.seen[request] += 1
            fault = self.fate(request, self.seen[request])
            self.injected[fault] += 1
            return fault

    def handle_error(self, request, client_address):
        """Clients go away when their connections are reset."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        if fault == "busy":
            return self.answer(503, {"Content-Type": "application/xml"}, BUSY)
        if fault == "reset":
            return self.reset()
        server = http.client.HTTPConnection(self.server.server_place, timeout=60)
        server.request(self.command, self.path, content, dict(self.headers))
        answer = server.getresponse()
        body, rows = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        server.close()
        if fault == "lost answer":
            return self.reset()
        return self.answer(answer.status, rows, body, is_cut=fault == "cut answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    def answer(self, status, rows, body, *, is_cut=False):
        rows = {"content-length": str(len(body)), **rows}
        self.send_response_only(status)
        for name, value in rows.items():
            if name not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
        if is_cut:
            self.reset()

    def reset(self):
        """Close without a word (RST)."""
        self.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def proxy():
    """A server, a proxy before it, and an environment that leads to the proxy."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with (
        FaultyProxy(f"http://{host}:{port}") as proxy,
        servers.served_by(servers.client_environment(proxy.url)) as environment,
    ):
        # What is tried again is judged, not how long it waits before.
        environment.setattr("botocore.retryhandler.delay_exponential", lambda **_: 0.01)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
    server.stop()


@pytest.fixture
def folder(proxy, request):
    """An empty bucket of this test's own."""
    import boto3

    name = f"b{zlib.crc32(request.node.name.encode())}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield Folder(f"s3://{name}/session")
    proxy.fate = lambda request, times: None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_once_is_made_again(proxy, folder, fault):
    """Whatever is done with a store, each of its requests failing the first time."""
    proxy.fate = lambda request, times: fault if times == 1 else None
    voxels = np.arange(4096, dtype=np.int16).reshape(16, 16, 16)
    volume = Volume(folder / "v.zarr", "0")
    volume.create((16, 16, 16), "int16", shard=(8, 16, 16))
    volume.write(Box.whole(voxels.shape), voxels)
    assert np.array_equal(volume.read(Box((2, 0, 0), (9, 16, 16))), voxels[2:9])
    assert folder.create("once", b"first")
    assert not folder.create("once", b"second")
    with folder.publishing("a/x") as file:
        file.write(b"0123456789")
    assert folder.sizes("a") == {"x": 10}
    assert fingerprint(f"{folder.url}/a/x")["size"] == 10
    with open_file(f"{folder.url}/a/x") as file:
        file.seek(4)
        assert file.read(3) == b"456"
    folder.remove("a")
    assert folder.names("a") == []
    assert proxy.injected[fault] >= 10


def test_a_run_on_a_store_that_fails_a_request_in_twenty(
    proxy, folder, tiny_model, tiny_session, tmp_path
):
    """It ends well, with the bytes of a run that nothing happens to."""
    source = (tiny_session / "simulated_0500.mrc").read_bytes()
    folder.write("krios/simulated_0500.mrc", source)
    proxy.seen.clear()
    proxy.injected.clear()
    proxy.fate = lambda request, times: drawn(f"{request} {times}", 0.05)
    outputs = [folder / "results", Folder(str(tmp_path / "results"))]
    inputs = [f"{folder.url}/krios", str(tiny_session / "simulated_0500.mrc")]
    for place, output in zip(inputs, outputs, strict=True):
        recipe = recipe_from(
            {
                "session": {"input": place, "output": output.url},
                "segment": {"model": str(tiny_model), "precision": "float32"},
                "trace": {},
                "pick": {},
                "export": {"masks": False},
                "compute": {"runner": "serial"},
            }
        )
        (row,) = run_session(plan_session(recipe), lambda *progress: None)["tomograms"]
        assert row["state"] == "done", row
    proxy.fate = lambda request, times: None

    disturbed, undisturbed = (everything(output) for output in outputs)
    assert len(undisturbed) > 20
    assert disturbed.keys() == undisturbed.keys()
    assert disturbed == undisturbed
    assert all(proxy.injected[fault] for fault in FAULTS), proxy.injected


def drawn(text, share):
    """Return one of the faults for that share of all texts, always the same for one."""
    draw = zlib.crc32(text.encode()) / 2**32
    return FAULTS[int(draw / share * len(FAULTS))] if draw < share else None


def everything(folder):
    """Return all files by name that hold no times or places."""
    names = fsspec.filesystem(folder.url.partition("://")[0]).find(folder.url)
    paths = [name.rpartition("/results/")[2] for name in names]
    # The digest of a stage tells where its input was read.
    return {
        re.sub("-[0-9a-f]{16}/", "/", path): folder.read(path)
        for path in paths
        if not path.endswith(TIMED)
    }
