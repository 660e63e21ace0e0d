"""What is said holds no credentials and stays on its line."""

import pickle

import pytest

from tomoseg.core.errors import RequestError
from tomoseg.core.redaction import one_line, redacted


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAX:hunter22@bucket/key does not exist",
        "postgresql+asyncpg://prefect:hunter22@db:5432/x",
        "https://b.s3.aws.com/k?X-Amz-Signature=hunter22&x=1",
        "compute.environment: export AWS_SECRET_ACCESS_KEY=hunter22",
        "found aws_session_token: 'hunter22' in line 3",
        '{"password": "hunter22"}',
    ],
)
def test_credentials_are_hidden(text):
    said = redacted(text)
    assert "hunter22" not in said
    assert "[hidden]" in said


@pytest.mark.parametrize(
    "text",
    [
        "file:///data/a@b.mrc has 3 sections",
        "s3://bucket/session/a.mrc does not exist",
        "line 3 (block 'x') has 2 tokens for 3 columns",
        "MAPC, MAPR, MAPS are (1, 1, 3); they must be a permutation of 1, 2, 3",
    ],
)
def test_other_words_stay(text):
    assert redacted(text) == text
    assert one_line(text) == text


def test_secrets_of_the_environment_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "correct horse battery")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/home/a/credentials")
    said = redacted("refused: correct horse battery, from /home/a/credentials")
    assert said == "refused: [hidden], from /home/a/credentials"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nERROR forged", "a ERROR forged"),
        ("a\r\n  b", "a b"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("a\udcffb", r"a\udcffb"),
        ("4 × 5 Å – ok", "4 × 5 Å – ok"),
    ],
)
def test_text_stays_on_its_line(text, said):
    assert one_line(text) == said


def test_errors_say_neither_secrets_nor_control_characters():
    error = RequestError(
        "s3://a:hunter22@b\n is wrong", remedy="Unset token=hunter22", tomogram="a\x1b[2J"
    )
    for one in (error, pickle.loads(pickle.dumps(error)), error.within(block="1")):
        assert "hunter22" not in f"{one} {one.args} {one.message} {one.remedy}"
        assert not {"\n", "\x1b"} & set(str(one))
