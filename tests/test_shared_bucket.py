"""A build cache in a bucket: moto's S3 on loopback, with machines that sweep at the same time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sweeps import tiny_plan

BUCKET = "packs"
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A client of an S3 of this process, whose bucket keeps every version of an object. One for all
    tests: fsspec keeps its connection for as long as the process lives."""
    pytest.importorskip("s3fs", reason="needs the extra `s3`")
    pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors")
    import botocore.session
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield client
    server.stop()


def machine(folder: Path, name: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "tests.support.sweep_machine", str(folder), name]
    return subprocess.Popen(
        [*line, f"s3://{BUCKET}/cache"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert found["reasons"] == []
    return found


def writes(client: Any, part: str, cache: str = "cache") -> Counter[str]:
    """How often each object below a part of the cache was written."""
    answer = client.list_object_versions(Bucket=BUCKET, Prefix=f"{cache}/{part}/")
    assert not answer["IsTruncated"]
    return Counter(row["Key"] for row in answer["Versions"])


@pytest.mark.thorough("test_another_machine_takes_a_conversion_over_and_measures_itself")
def test_two_machines_at_once_write_every_object_once_and_damage_is_found_and_made_again(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "log"))
    tiny_plan(tmp_path, 1)
    both = [machine(tmp_path, name) for name in ("one", "two")]
    first, second = (said(process) for process in both)
    assert first["digests"] == second["digests"] and len(first["digests"]) == 1
    assert (tmp_path / "log").read_text().count("convert ") == 1
    for part in ("objects", "records"):
        assert set(writes(bucket, part).values()) == {1}, part
    left = bucket.list_objects_v2(Bucket=BUCKET, Prefix="cache/claims/")
    assert left["KeyCount"] == 0
    # A byte of the largest object is not what it was: its digest tells, and a third machine, which
    # has nothing of its own, makes the stage again.
    rows = bucket.list_objects_v2(Bucket=BUCKET, Prefix="cache/objects/")["Contents"]
    key = max(rows, key=lambda row: row["Size"])["Key"]
    data = bytearray(bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[len(data) // 2] ^= 1
    bucket.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))
    third = said(machine(tmp_path, "three"))
    assert any("shared cache kept is damaged" in text for text in third["notes"])
    assert third["digests"] == first["digests"]
    healed = bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert hashlib.sha256(healed).hexdigest() == key.rpartition("/")[2]
    again = writes(bucket, "objects")
    assert again.pop(key) == 3 and set(again.values()) == {1}


def test_an_object_that_another_machine_wrote_meanwhile_stays_and_a_cut_one_is_replaced(
    bucket: Any, tmp_path: Path
) -> None:
    from packager.package.manifest import FileEntry
    from packager.pipeline.shared_cache import Store

    store = Store(f"s3://{BUCKET}/other", make=True)
    data = b"abc" * 100
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "a").write_bytes(data)
    row = FileEntry("a", len(data), digest)
    key = f"other/objects/{digest[:2]}/{digest}"
    store._put(tmp_path / "a", store._object(digest))
    store._put(tmp_path / "a", store._object(digest))
    assert writes(bucket, "objects", "other") == {key: 1}
    bucket.put_object(Bucket=BUCKET, Key=key, Body=data[:10])
    list(store.push("convert", "0" * 24, tmp_path, {}, (row,)))
    assert bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read() == data
