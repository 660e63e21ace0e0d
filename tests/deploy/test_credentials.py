"""Credentials of a deployment: who may read them, how long they last, and who is refused."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
DAY = 86400

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


def run(command, **options):
    return subprocess.run(command, capture_output=True, check=False, **options)


def made(folder, *seen_at):
    """Run the script; return what it says."""
    command = ["bash", DEPLOY / "credentials.sh", folder, *seen_at]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def openssl(*arguments, **options):
    return run(["openssl", *map(str, arguments)], **options)


def lasts(certificate, days):
    return openssl("x509", "-in", certificate, "-checkend", days * DAY).returncode == 0


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy") / "credentials"
    made(folder)
    return folder


def test_only_their_owner_reads_them(credentials):
    assert credentials.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in credentials.iterdir()} == {0o600}


def test_all_certificates_are_of_the_one_authority(credentials):
    for name in ("scheduler", "worker", "client"):
        certificate = credentials / f"{name}.pem"
        assert openssl("verify", "-CAfile", credentials / "ca.pem", certificate).returncode == 0
        assert lasts(certificate, 364)
        assert not lasts(certificate, 366)
    assert lasts(credentials / "ca.pem", 3600)


def test_two_deployments_share_nothing(credentials, tmp_path):
    made(tmp_path / "other")
    refused = openssl("verify", "-CAfile", tmp_path / "other/ca.pem", credentials / "client.pem")
    assert refused.returncode != 0
    password = "prefect-password"
    assert (tmp_path / "other" / password).read_text() != (credentials / password).read_text()


def test_a_second_run_renews_only_what_expires_soon(tmp_path):
    made(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    authority = ("-CA", tmp_path / "ca.pem", "-CAkey", tmp_path / "ca-key.pem", "-days", 10)
    request = openssl("req", "-new", "-key", tmp_path / "worker-key.pem", "-subj", "/CN=worker")
    short = openssl("x509", "-req", *authority, "-set_serial", 7, input=request.stdout)
    (tmp_path / "worker.pem").write_bytes(short.stdout)
    assert not lasts(tmp_path / "worker.pem", 30)

    said = made(tmp_path)
    assert "new certificate: worker; restart what uses it" in said
    assert lasts(tmp_path / "worker.pem", 300)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"worker.pem", "worker-key.pem"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files to another user")
def test_what_root_renews_is_read_by_the_folders_owner(tmp_path):
    made(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    (tmp_path / "prefect-password").unlink()
    made(tmp_path)
    owners = {path.name: path.stat().st_uid for path in tmp_path.iterdir()}
    assert {name for name, owner in owners.items() if owner != 65534} == {"ca-key.pem"}


def test_certificates_of_a_lost_authority_are_made_anew(tmp_path):
    made(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    made(tmp_path)
    for name in ("scheduler", "worker", "client"):
        verified = openssl("verify", "-CAfile", tmp_path / "ca.pem", tmp_path / f"{name}.pem")
        assert verified.returncode == 0


def test_containers_find_the_files_where_they_see_them(tmp_path):
    made(tmp_path, "/run/credentials")
    lines = (tmp_path / "tls.env").read_text().splitlines()
    paths = [line.partition("=")[2] for line in lines if "ENCRYPTION" not in line]
    assert len(paths) == 7
    assert all(path.startswith("/run/credentials/") for path in paths)


def tls_env(folder):
    lines = (folder / "tls.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def scheduler(credentials):
    """Address of a scheduler that was told of TLS by the environment alone."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--protocol", "tls"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"],
        env=os.environ | tls_env(credentials),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stderr if "Scheduler at:" in line)
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate()


def tls_of(folder):
    return {
        "ca": folder / "ca.pem",
        "cert": folder / "client.pem",
        "key": folder / "client-key.pem",
    }


def test_a_client_of_the_deployment_is_let_in(scheduler, credentials):
    from tomoseg.compute.clusters import runner_at
    from tomoseg.compute.settings import ComputeSection

    assert scheduler.startswith("tls://127.0.0.1:")
    files = {name: str(path) for name, path in tls_of(credentials).items()}
    with runner_at(scheduler, ComputeSection(address=scheduler, tls=files)) as runner:
        assert runner.dashboard


REACH = """
import sys
from tomoseg.compute.clusters import runner_at
from tomoseg.compute.settings import ComputeSection

with runner_at(sys.argv[1], ComputeSection(address=sys.argv[1])):
    print("reached")
"""


def test_the_environment_of_a_deployment_is_enough(scheduler, credentials):
    def reached(**told):
        command = [sys.executable, "-c", REACH, scheduler]
        return run(command, env=os.environ | told, text=True)

    assert reached(**tls_env(credentials)).stdout == "reached\n"
    assert f"{scheduler} asks for a certificate" in reached().stderr


@pytest.mark.parametrize("who", ["nobody", "another deployment"])
def test_others_are_refused_before_they_can_say_anything(scheduler, credentials, tmp_path, who):
    context = ssl.create_default_context(cafile=credentials / "ca.pem")
    context.check_hostname = False
    if who == "another deployment":
        made(tmp_path)
        context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client-key.pem")
    host, port = scheduler.removeprefix("tls://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw) as stream,
    ):
        # Under TLS 1.3 the client learns of the refusal when it reads.
        if not stream.recv(1):
            raise ConnectionError("closed")


def test_a_client_in_the_clear_is_refused(scheduler, monkeypatch):
    from tomoseg.compute import runners
    from tomoseg.core.errors import ResourceError

    monkeypatch.setattr(runners, "CONNECT_SECONDS", 2.0)
    plain = scheduler.replace("tls://", "tcp://")
    with (
        pytest.raises(ResourceError, match="no Dask scheduler answers"),
        runners.open_runner(plain),
    ):
        pass
