"""A watch over object storage: what is deleted there, and what the watch says of itself."""

import importlib.util

import pytest
import servers
from facility import Site

from tomoseg.io.stores import Folder
from tomoseg.io.volumes.sources import open_source
from tomoseg.service.arrivals import SessionWork
from tomoseg.service.arrivals.presence import presences

if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto")):
    pytest.skip("s3fs or moto is not installed", allow_module_level=True)


@pytest.fixture
def client():
    """Run an S3 server in this process, with a bucket; yield another program's client."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with servers.served_by(servers.client_environment(f"http://{host}:{port}")):
        client = boto3.session.Session().client("s3")
        client.create_bucket(Bucket="krios")
        yield client
    running.stop()


def test_an_object_that_is_gone_is_waited_for(client, tmp_path, tiny_model, tiny_session):
    site = Site(tmp_path, tiny_model, tiny_session / "simulated_0500.mrc")
    site.write(sessions="s3://krios/in/*", output="s3://krios/out/{session}")
    for name in ("a", "b"):
        client.put_object(Bucket="krios", Key=f"in/s1/{name}.mrc", Body=site.tomogram)
    site.settle()

    def process(found, records):
        for name in ("a", "b"):
            client.delete_object(Bucket="krios", Key=f"in/s1/{name}.mrc")
        with open_source(found.url) as source:
            raise AssertionError(source)

    outcome = site.work("s1", process)
    assert (outcome.rows, site.begun, outcome.left) == ((), ["a"], 2)
    assert site.where() == {"a": "gone", "b": "gone"}
    (warning,) = site.survey().presence.warnings
    assert "s3://krios/in is not there" in warning.say
    (known,) = presences(Folder("s3://krios/out"))
    assert known.places["s1"].url == "s3://krios/in/s1"
    for name in ("a", "b"):
        client.put_object(Bucket="krios", Key=f"in/s1/{name}.mrc", Body=site.tomogram)
    assert site.where() == {"a": "ready", "b": "ready"}
    rows = SessionWork.read(Folder("s3://krios/out/s1")).tomograms
    assert {name: row.attempts for name, row in rows.items()} == {"a": 0}
