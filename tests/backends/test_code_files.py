"""Compiled code on disk: what others could have written is never given out, and what is damaged is not either."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from aidotnet_py.backends import code_files
from aidotnet_py.backends.code_files import CodeFiles

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions are those of POSIX")

DIGEST, OTHER, CODE = "a" * 64, "b" * 64, b"machine code"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of code."""
    path = tmp_path / "cache" / "kernels"
    CodeFiles(path).write(DIGEST, CODE)
    assert CodeFiles(path).read(DIGEST) == CODE
    return path


def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        CodeFiles(tmp_path / "a" / "b").write(DIGEST, CODE)
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").rglob("*")}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert modes == {"b": 0o700, DIGEST: 0o600}


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_file_that_others_may_write_to_is_not_read(folder: Path, mode: int) -> None:
    (folder / DIGEST).chmod(mode)
    assert CodeFiles(folder).read(DIGEST) is None
    CodeFiles(folder).write(DIGEST, CODE)
    assert CodeFiles(folder).read(DIGEST) == CODE


def test_a_file_of_another_user_is_not_read(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(folder / DIGEST, 12345, -1)
    assert CodeFiles(folder).read(DIGEST) is None


def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    files = CodeFiles(folder)
    assert files.read(DIGEST) is None
    files.write(OTHER, CODE)
    assert not (folder / OTHER).exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
@pytest.mark.parametrize("above", [False, True])
def test_a_folder_that_others_may_write_to_is_not_used(folder: Path, mode: int, above: bool) -> None:
    (folder.parent if above else folder).chmod(mode)
    files = CodeFiles(folder)
    assert files.read(DIGEST) is None
    files.write(OTHER, CODE)
    assert not (folder / OTHER).exists()


def test_the_sticky_bit_keeps_others_from_moving_a_folder(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    assert CodeFiles(folder).read(DIGEST) == CODE
    # Within the folder itself, others could still make files.
    folder.chmod(0o1777)
    assert CodeFiles(folder).read(DIGEST) is None


def test_links_in_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / DIGEST).rename(tmp_path / "elsewhere")
    (folder / DIGEST).symlink_to(tmp_path / "elsewhere")
    assert CodeFiles(folder).read(DIGEST) is None


def test_a_link_to_the_folder_is_followed_once(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    assert CodeFiles(link / "kernels").read(DIGEST) == CODE


def test_what_takes_the_place_of_an_open_folder_is_not_read(folder: Path) -> None:
    files = CodeFiles(folder)
    folder.rename(folder.with_name("moved"))
    CodeFiles(folder).write(DIGEST, b"of somebody else")
    CodeFiles(folder).write(OTHER, b"of somebody else")
    assert files.read(DIGEST) == CODE
    assert files.read(OTHER) is None


def test_a_fifo_is_not_waited_for(folder: Path) -> None:
    (folder / DIGEST).unlink()
    os.mkfifo(folder / DIGEST, 0o600)
    found: list[bytes | None] = []
    reader = threading.Thread(target=lambda: found.append(CodeFiles(folder).read(DIGEST)), daemon=True)
    reader.start()
    reader.join(10)
    assert found == [None]


def test_code_under_the_name_of_other_code_is_not_read(folder: Path) -> None:
    (folder / DIGEST).rename(folder / OTHER)
    assert CodeFiles(folder).read(OTHER) is None


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b"\1" + b[1:], lambda b: b[:32]])
def test_what_is_cut_or_changed_is_not_read(folder: Path, damage: object) -> None:
    assert callable(damage)
    (folder / DIGEST).write_bytes(damage((folder / DIGEST).read_bytes()))
    assert CodeFiles(folder).read(DIGEST) is None


def test_nothing_is_left_of_a_failed_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    CodeFiles(folder).write(OTHER, CODE)
    assert [p.name for p in folder.iterdir()] == [DIGEST]


@pytest.mark.parametrize("moment", ["open", "replace"])
def test_an_interrupt_goes_on_its_way(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    replace, here = os.replace, threading.get_ident()

    def pressed(*arguments: Any, **options: Any) -> None:
        if moment == "replace":
            replace(*arguments, **options)
        # Other tests may have left something to write to a thread that compiles.
        if threading.get_ident() == here:
            raise KeyboardInterrupt

    if moment == "open":
        monkeypatch.setattr(CodeFiles, "_open", pressed)
    else:
        monkeypatch.setattr(os, "replace", pressed)
    with pytest.raises(KeyboardInterrupt):
        CodeFiles(folder).write(OTHER, CODE)
    assert {p.name for p in folder.iterdir()} <= {DIGEST, OTHER}


def test_descriptors_are_closed_with_their_owner(folder: Path) -> None:
    opened = CodeFiles(folder)._descriptor
    assert opened is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


def test_where_folders_have_no_descriptors_files_are_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_files, "_HAS_FOLDER_DESCRIPTORS", False)
    monkeypatch.setattr(code_files, "_MOST_FILES", 1)
    files = CodeFiles(tmp_path / "kernels")
    files.write(OTHER, CODE)
    assert files.read(OTHER) == CODE
    os.utime(tmp_path / "kernels" / OTHER, (1, 1))
    (tmp_path / "kernels" / "newer").touch()
    CodeFiles(tmp_path / "kernels").write(DIGEST, CODE)
    assert sorted(p.name for p in (tmp_path / "kernels").iterdir()) == [DIGEST, "newer"]


def test_files_that_vanish_from_the_list_are_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread or process renames its temporary file between the listing and the look at the file's age."""
    monkeypatch.setattr(code_files, "_MOST_FILES", 1)
    os.utime(folder / DIGEST, (1, 1))
    (folder / "newer").touch()
    scandir = os.scandir

    class Vanished:
        name = "c" * 64 + ".0123456789abcdef"

        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            raise FileNotFoundError(2, "No such file or directory")

    class Listing:
        def __init__(self, place: Any) -> None:
            self._entries: Any = scandir(place)

        def __enter__(self) -> list[Any]:
            return [Vanished(), *self._entries]

        def __exit__(self, *error: object) -> None:
            self._entries.close()

    monkeypatch.setattr(os, "scandir", Listing)
    CodeFiles(folder).write(OTHER, CODE)
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == [OTHER, "newer"]
    assert CodeFiles(folder).read(OTHER) == CODE


def test_a_folder_that_cannot_be_listed_is_written_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(place: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    CodeFiles(folder).write(OTHER, CODE)
    assert CodeFiles(folder).read(OTHER) == CODE
