"""Writing whole or not at all: modes, links, FIFOs, errors, several processes, and what killed ones leave behind."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from places import ROOT

from aidotnet_py import ArgumentException, ArgumentNullException
from aidotnet_py.whole_files import read_file, replacing, write_file


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def parts_in(folder):
    return [name for name in names_in(folder) if name.endswith(".part")]


def started(folder, script, *arguments):
    """A process in a folder, which tells by a line when it is where it is to be."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# Stops in the middle of a file, until it is told to go on.
HALFWAY = """
    import sys
    from aidotnet_py.whole_files import replacing
    with replacing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("halfway", flush=True)
        sys.stdin.readline()
        file.write(b" and half")
"""


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


class TestContent:
    def test_is_what_was_written(self, tmp_path):
        write_file(tmp_path / "a.bin", b"one")
        write_file(str(tmp_path / "a.bin"), b"two")
        assert read_file(tmp_path / "a.bin") == b"two"
        assert names_in(tmp_path) == ["a.bin"]

    def test_may_come_in_pieces(self, tmp_path):
        with replacing(tmp_path / "a") as file:
            file.write(b"one ")
            assert not (tmp_path / "a").exists()
            file.write(b"two")
        assert read_file(tmp_path / "a") == b"one two"

    def test_may_have_the_longest_names(self, tmp_path):
        write_file(tmp_path / ("n" * 255), b"data")
        assert read_file(tmp_path / ("n" * 255)) == b"data"

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), OSError("no number")])
    def test_is_the_old_one_after_a_failure(self, tmp_path, error):
        write_file(tmp_path / "a", b"old")

        def fail():
            with replacing(tmp_path / "a") as file:
                file.write(b"new")
                raise error

        with pytest.raises(type(error)) as raised:
            fail()
        assert raised.value is error
        assert read_file(tmp_path / "a") == b"old"
        assert names_in(tmp_path) == ["a"]

    def test_is_on_the_disk_and_so_is_its_name(self, tmp_path, monkeypatch):
        """The file is flushed under its temporary name, the folder after the renaming."""
        flushed = []
        real = os.fsync

        def fsync(descriptor):
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            flushed.append(("folder" if is_folder else "file", names_in(tmp_path) == ["a"]))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        write_file(tmp_path / "a", b"data")
        assert flushed == [("file", False), ("folder", True)]

    @pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
    def test_in_folders_that_cannot_be_flushed(self, tmp_path, monkeypatch, number, raises):
        real = os.fsync

        def fsync(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        if raises:
            with pytest.raises(OSError, match=r"a'$"):
                write_file(tmp_path / "a", b"data")
        else:
            write_file(tmp_path / "a", b"data")
        assert read_file(tmp_path / "a") == b"data"


class TestModes:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o444, 0o755])
    def test_are_those_of_the_file_before(self, tmp_path, umask, mode):
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(mode)
        write_file(tmp_path / "a", b"data")
        assert mode_of(tmp_path / "a") == mode

    def test_of_new_files_are_what_the_umask_gives(self, tmp_path, umask):
        write_file(tmp_path / "a", b"data")
        assert mode_of(tmp_path / "a") == 0o640

    def test_of_a_private_file_are_private_at_any_time(self, tmp_path):
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(0o600)
        with replacing(tmp_path / "a"):
            (part,) = parts_in(tmp_path)
            assert mode_of(tmp_path / part) == 0o600

    def test_bits_that_run_programs_as_others_are_not_handed_down(self, tmp_path):
        (tmp_path / "a").touch()
        (tmp_path / "a").chmod(0o4755)
        write_file(tmp_path / "a", b"data")
        assert mode_of(tmp_path / "a") == 0o755

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_so_are_owner_and_group(self, tmp_path):
        (tmp_path / "a").touch()
        os.chown(tmp_path / "a", 12345, 23456)
        write_file(tmp_path / "a", b"data")
        assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (12345, 23456)

    def test_stay_ours_where_owners_cannot_be_given(self, tmp_path, monkeypatch):
        (tmp_path / "a").touch()

        def fchown(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "fchown", fchown)
        write_file(tmp_path / "a", b"data")
        assert read_file(tmp_path / "a") == b"data"


class TestLinks:
    def test_stay_and_their_target_is_written_in_its_own_folder(self, tmp_path):
        (tmp_path / "far").mkdir()
        (tmp_path / "far" / "real").write_bytes(b"old")
        (tmp_path / "far" / "real").chmod(0o600)
        (tmp_path / "link").symlink_to("far/real")
        with replacing(tmp_path / "link") as file:
            assert parts_in(tmp_path / "far")
            assert not parts_in(tmp_path)
            file.write(b"data")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "far" / "real").read_bytes() == b"data"
        assert mode_of(tmp_path / "far" / "real") == 0o600

    def test_to_no_file_yet_make_it(self, tmp_path):
        (tmp_path / "link").symlink_to("real")
        write_file(tmp_path / "link", b"data")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"data"

    def test_in_a_circle_are_refused(self, tmp_path):
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(ArgumentException, match=r"filePath must lead to a file, got a circle of links at '.*a'"):
            write_file(tmp_path / "a", b"data")
        with pytest.raises(FileNotFoundError, match="filePath must be an existing file"):
            read_file(tmp_path / "a")

    def test_of_the_other_kind_leave_the_other_name_its_content(self, tmp_path):
        write_file(tmp_path / "a", b"old")
        os.link(tmp_path / "a", tmp_path / "b")
        write_file(tmp_path / "a", b"new")
        assert read_file(tmp_path / "b") == b"old"


class TestOtherThings:
    def test_fifos_are_neither_written_nor_read_nor_replaced(self, tmp_path):
        """A reader or writer of one would wait for ever."""
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("fifo")
        for name in ("fifo", "link"):
            with pytest.raises(ArgumentException, match=rf"a regular file or a new one, got a FIFO at '.*{name}'"):
                write_file(tmp_path / name, b"data")
            with pytest.raises(ArgumentException, match=rf"must be a regular file, got a FIFO at '.*{name}'"):
                read_file(tmp_path / name)
        assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
        assert names_in(tmp_path) == ["fifo", "link"]

    @pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/full"])
    def test_devices_are_neither_written_nor_read_nor_replaced(self, path):
        with pytest.raises(ArgumentException, match="got a device at"):
            write_file(path, b"data")
        with pytest.raises(ArgumentException, match="got a device at"):
            read_file(path)
        assert stat.S_ISCHR(os.stat(path).st_mode)

    def test_folders_are_refused(self, tmp_path):
        with pytest.raises(
            ArgumentException, match=r"filePath must be a regular file or a new one, got a folder at '.*'"
        ):
            write_file(tmp_path, b"")
        with pytest.raises(ArgumentException, match=r"filePath must be a regular file, got a folder at '.*'"):
            read_file(tmp_path)

    @pytest.mark.parametrize("path", ["none/a.bin", "file/a.bin", "file/b/c"])
    def test_folders_that_are_none_are_refused(self, tmp_path, path):
        (tmp_path / "file").touch()
        with pytest.raises(
            (FileNotFoundError, NotADirectoryError),
            match=r"filePath must lie in an existing folder; make '.*(none|file|b)': '.*'",
        ):
            write_file(tmp_path / path, b"")
        with pytest.raises(FileNotFoundError, match=r"filePath must be an existing file, got nothing: '.*'"):
            read_file(tmp_path / path)

    def test_what_are_no_paths_are_refused(self):
        for call in (read_file, lambda path: write_file(path, b"")):
            with pytest.raises(ArgumentNullException, match="filePath must be a path, got None"):
                call(None)
            for path in (3, "", b"a"):
                with pytest.raises(ArgumentException, match=f"filePath must be a path, got {path!r}"):
                    call(path)
            with pytest.raises(ArgumentException, match="without null characters"):
                call("a\0b")

    def test_files_that_memory_has_no_room_for_are_refused(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_bytes(b"1234")

        def read_bytes(_):
            raise MemoryError

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        with pytest.raises(ArgumentException, match=r"filePath must fit into memory, got 4 bytes at '.*a'"):
            read_file(tmp_path / "a")


class TestErrors:
    def test_name_the_path_that_was_given(self, tmp_path, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        (tmp_path / "link").symlink_to("real")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            write_file(tmp_path / "link", b"data")
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "link"))
        assert names_in(tmp_path) == ["link"]

    def test_of_a_folder_where_nothing_can_be_made(self):
        with pytest.raises(OSError, match=r"/proc/model'$") as raised:
            write_file("/proc/model", b"data")
        assert raised.value.filename == "/proc/model"
        assert ".part" not in str(raised.value)

    def test_of_the_renaming(self, tmp_path, monkeypatch):
        def replace(*_):
            raise PermissionError(errno.EACCES, "Permission denied", "part", None, "target")

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(PermissionError) as raised:
            write_file(tmp_path / "a", b"data")
        assert (raised.value.filename, raised.value.filename2) == (str(tmp_path / "a"), None)
        assert names_in(tmp_path) == []

    def test_of_a_name_that_is_too_long(self, tmp_path):
        with pytest.raises(OSError, match="File name too long") as raised:
            write_file(tmp_path / ("n" * 300), b"data")
        assert raised.value.filename == str(tmp_path / ("n" * 300))


@pytest.mark.slow
class TestKilledProcesses:
    def test_leave_the_old_file_and_what_the_next_write_removes(self, tmp_path):
        write_file(tmp_path / "a", b"old")
        with started(tmp_path, HALFWAY, "a") as process:
            assert process.stdout.readline() == "halfway\n"
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert read_file(tmp_path / "a") == b"old"
        assert len(parts_in(tmp_path)) == 1
        write_file(tmp_path / "another", b"new")
        assert names_in(tmp_path) == ["a", "another"]

    def test_that_live_keep_what_they_write(self, tmp_path):
        with started(tmp_path, HALFWAY, "a") as process:
            process.stdout.readline()
            write_file(tmp_path / "a", b"ours")
            assert read_file(tmp_path / "a") == b"ours"
            assert len(parts_in(tmp_path)) == 1
            process.communicate("go on\n")
        assert process.returncode == 0
        assert read_file(tmp_path / "a") == b"half and half"
        assert names_in(tmp_path) == ["a"]

    def test_so_do_other_threads(self, tmp_path):
        with replacing(tmp_path / "a") as file:
            thread = threading.Thread(target=write_file, args=(tmp_path / "b", b"theirs"))
            thread.start()
            thread.join()
            file.write(b"ours")
        assert (read_file(tmp_path / "a"), read_file(tmp_path / "b")) == (b"ours", b"theirs")
        assert names_in(tmp_path) == ["a", "b"]

    def test_of_other_machines_are_none_of_ours(self, tmp_path):
        others = [".aidotnet_py-00000000-0123456789abcdef.part", ".part", "a.part", ".aidotnet_py-notes"]
        for name in others:
            (tmp_path / name).touch()
        write_file(tmp_path / "a", b"data")
        assert names_in(tmp_path) == sorted([*others, "a"])

    def test_leave_links_and_fifos_of_their_names_to_nobody(self, tmp_path):
        """Neither is followed or waited for."""
        with replacing(tmp_path / "a"):
            (part,) = parts_in(tmp_path)
        (tmp_path / "precious").write_bytes(b"data")
        (tmp_path / part).symlink_to("precious")
        os.mkfifo(tmp_path / part.replace(".part", "0.part"))
        write_file(tmp_path / "a", b"data")
        assert read_file(tmp_path / "precious") == b"data"

    def test_taken_for_dead_make_their_file_anew(self, tmp_path, monkeypatch):
        """Between the making of a file and its lock, somebody else may take it for a leftover."""
        import fcntl

        real, swept = fcntl.flock, []

        def flock(descriptor, operation):
            if not swept:
                swept.extend(parts_in(tmp_path))
                (tmp_path / swept[0]).unlink()
            real(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        write_file(tmp_path / "a", b"data")
        assert len(swept) == 1
        assert read_file(tmp_path / "a") == b"data"

    def test_on_file_systems_without_locks_are_left(self, tmp_path, monkeypatch):
        import fcntl

        with started(tmp_path, HALFWAY, "a") as process:
            process.stdout.readline()
            process.kill()

        def flock(*_):
            raise OSError(errno.ENOTSUP, "Operation not supported")

        monkeypatch.setattr(fcntl, "flock", flock)
        write_file(tmp_path / "a", b"data")
        assert read_file(tmp_path / "a") == b"data"
        assert len(parts_in(tmp_path)) == 1

    def test_several_write_one_path_and_it_is_always_whole(self, tmp_path):
        script = """
            import sys
            from aidotnet_py.whole_files import read_file, write_file
            mine = sys.argv[1].encode() * 50_000
            for _ in range(40):
                write_file("a", mine)
                found = read_file("a")
                assert len(found) == 50_000 and len(set(found)) == 1, (len(found), set(found))
        """
        processes = [started(tmp_path, script, letter) for letter in "xyz"]
        for process in processes:
            process.communicate()
            assert process.returncode == 0
        assert names_in(tmp_path) == ["a"]
