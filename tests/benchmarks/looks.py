"""What an idle look costs: CPU and requests, with 1,000 settled files, on disk and in a bucket.

python tests/benchmarks/looks.py [FILES]
"""

import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import s3fs
from moto.server import ThreadedMotoServer

from tomoseg.service.watching.looks import look
from tomoseg.service.watching.settings import load_watch

LOOKS = 5


def main(files):
    """Print a line a store."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    client = boto3.client("s3")
    client.create_bucket(Bucket="bench")
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "in" / "s1").mkdir(parents=True)
        for number in range(files):
            (Path(home) / "in" / "s1" / f"t{number:04d}.mrc").write_bytes(bytes(1024))
            client.put_object(Bucket="bench", Key=f"in/s1/t{number:04d}.mrc", Body=bytes(1024))
        for name, root in (("disk", home), ("bucket", "s3://bench")):
            tell(name, Path(home), root, files)
    running.stop()


def tell(name, home, root, files):
    """Settle a session, look at it a few times more, and print what that took."""
    (home / "recipe.yaml").write_text("{}")
    (home / "watch.yaml").write_text(
        f"{{sessions: '{root}/in/*', output: '{root}/out/{{session}}', incomplete_minutes: 0, "
        "recipes: [{recipe: recipe.yaml}]}"
    )
    watch, now = load_watch(home / "watch.yaml"), datetime.now(UTC)
    for minute in range(2):
        (one,) = look(watch, now + timedelta(minutes=minute))
    assert len(one.ready) == files, one
    requests = counted()
    begun = time.thread_time(), time.process_time()
    for minute in range(2, 2 + LOOKS):
        look(watch, now + timedelta(minutes=minute))
    mine, all_threads = time.thread_time() - begun[0], time.process_time() - begun[1]
    print(
        f"{name}: {files} files, {1000 * mine / LOOKS:.0f} ms CPU a look in its own thread "
        f"({1000 * all_threads / LOOKS:.0f} with the client's and the test server's), "
        f"{len(requests) / LOOKS:g} requests a look"
    )


def counted():
    """Return a list to which each request to S3 is added."""
    requests, call = [], s3fs.S3FileSystem._call_s3

    async def noted(self, method, *arguments, **keywords):
        requests.append(getattr(method, "__name__", str(method)))
        return await call(self, method, *arguments, **keywords)

    assert asyncio.iscoroutinefunction(call)
    s3fs.S3FileSystem._call_s3 = noted
    return requests


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
