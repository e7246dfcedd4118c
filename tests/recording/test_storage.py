"""Where files are read from: a folder whose links are not followed, or what fsspec makes of a path."""

from __future__ import annotations

import os

import pytest

from labeltrack.recording.storage import HEAD, LocalFolder, RemoteFolder, storage_of


def test_a_folder_gives_its_files_and_follows_nothing(tmp_path):
    (tmp_path / "mode=a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "mode=a" / "b" / "c" / "file").write_bytes(b"123")
    (tmp_path / "top").write_bytes(b"")
    (tmp_path / "other").mkdir()  # folders that are no modes are somebody else's
    (tmp_path / "other" / "file").touch()
    (tmp_path / "mode=a" / "b" / "c" / "deep").mkdir()
    (tmp_path / "mode=a" / "link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "mode=a" / "pipe")
    storage = storage_of(tmp_path)
    assert isinstance(storage, LocalFolder)
    names, strange = storage.names()
    assert names == ["mode=a/b/c/file", "top"]
    assert strange == [
        "mode=a/b/c/deep is a folder where none belongs",
        "mode=a/link is a link; it is not followed",
        "mode=a/pipe is neither file nor folder; it is not followed",
    ]
    assert storage.size("mode=a/b/c/file") == 3
    assert bytes(storage.content("mode=a/b/c/file")[:]) == b"123"
    assert bytes(storage.content("top")[:]) == b""
    head, whole = storage.head("mode=a/b/c/file")
    assert (head[:], len(head), whole) == (b"123", 3, True)
    with storage.open("mode=a/b/c/file") as file:
        assert file.read() == b"123"
    for name in ("mode=a/pipe", "mode=a"):
        with pytest.raises(OSError, match="not a regular file"):
            storage.open(name)
    with pytest.raises(FileNotFoundError):
        storage.open("nothing")


def test_a_path_with_a_protocol_is_read_by_fsspec():
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra 'dask')")
    fs = fsspec.filesystem("memory")
    fs.pipe("/storage-test/run/mode=a/file", b"12345")
    storage = storage_of("memory://storage-test/run/")
    assert isinstance(storage, RemoteFolder)
    assert storage.size("mode=a/file") == 5  # before and after they were listed
    assert storage.names() == (["mode=a/file"], [])
    assert storage.size("mode=a/file") == 5
    assert bytes(storage.content("mode=a/file")) == b"12345"
    assert storage.head("mode=a/file") == (b"12345", True)
    fs.pipe("/storage-test/run/mode=a/long", bytes(2 * HEAD))
    assert storage.head("mode=a/long") == (bytes(HEAD), False)
    with storage.open("mode=a/file") as file:
        assert file.readline(3) == b"123"
    with pytest.raises(FileNotFoundError):
        storage.open("nothing")
