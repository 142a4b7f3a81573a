"""Archives: what goes in comes out bit for bit; a hostile file raises ArgumentException and does nothing else."""

from __future__ import annotations

import json
import os
import stat
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aidotnet_py import ArgumentException
from aidotnet_py.archives import pack, read_file, unpack, write_file


def raw(header, body=b""):
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


GOOD = pack("kind", {"w": np.arange(6.0).reshape(2, 3)}, {"name": "n"})


class TestRoundTrip:
    @given(
        hnp.arrays(
            st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        ),
        st.dictionaries(st.text(), st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.none())),
    )
    def test_is_exact(self, array, description):
        arrays, found = unpack("kind", pack("kind", {"a": array}, description))
        assert (arrays["a"].shape, arrays["a"].dtype) == (array.shape, array.dtype)
        assert arrays["a"].tobytes() == array.tobytes()
        assert found == description

    @pytest.mark.parametrize(
        "array",
        [
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(12.0).reshape(3, 4)[::2, ::-1],
            np.arange(6.0).reshape(2, 3).T,
            np.float64(3.0) * np.ones(()),
            np.array([np.nan, -0.0, np.inf, 5e-324]),
        ],
    )
    def test_of_any_layout_and_value(self, array):
        arrays, _ = unpack("kind", pack("kind", {"a": array}, {}))
        np.testing.assert_array_equal(arrays["a"], array, strict=True)
        assert (np.signbit(arrays["a"]) == np.signbit(array)).all()

    def test_keeps_names_apart(self):
        arrays, _ = unpack("kind", pack("kind", {"b.x": np.zeros(1), "a": np.ones(2), "": np.ones(3)}, {}))
        assert {name: array.size for name, array in arrays.items()} == {"b.x": 1, "a": 2, "": 3}


DEEP = "[" * 200_000 + "]" * 200_000

HOSTILE = {
    "empty": b"",
    "too short": b"\x01\x02",
    "no safetensors": b"PK\x03\x04 hello, this is some other file",
    "a pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
    "truncated body": GOOD[:-1],
    "truncated header": GOOD[:20],
    "more than announced": GOOD + b"\x00",
    "header of 2**64 - 1 bytes": b"\xff" * 8 + GOOD[8:],
    "header longer than the file": struct.pack("<Q", 10**6) + GOOD[8:],
    "header that is no JSON": raw(b"{not json}"),
    "header that is no mapping": raw([1, 2, 3]),
    "header nested too deeply": raw(DEEP.encode()),
    "shape that its bytes do not fill": raw(
        {"w": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "shape whose size overflows": raw(
        {"w": {"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "negative shape": raw({"w": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)),
    "offsets beyond the end": raw({"w": {"dtype": "F64", "shape": [1], "data_offsets": [800, 808]}}, bytes(8)),
    "overlapping arrays": raw(
        {n: {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} for n in ("v", "w")}, bytes(8)
    ),
    "unknown dtype": raw({"w": {"dtype": "F65", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    "a dtype that NumPy has not": raw({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, bytes(8)),
    "metadata that is no mapping": raw({"__metadata__": "kind"}),
    "metadata that are no strings": raw({"__metadata__": {"kind": {"a": 1}}}),
    "null metadata": raw({"__metadata__": None}),
    "description that is no JSON": raw({"__metadata__": {"kind": "kind", "description": "{"}}),
    "description nested too deeply": raw({"__metadata__": {"kind": "kind", "description": DEEP}}),
    "description of a huge number": raw({"__metadata__": {"kind": "kind", "description": "1" * 10_000}}),
}


class TestHostile:
    @pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
    def test_bytes_are_refused(self, data):
        with pytest.raises(ArgumentException, match=r"evil\.bin (is not a safetensors file|holds)"):
            unpack("kind", data, "evil.bin")

    @pytest.mark.parametrize("data", [None, "text", 3])
    def test_what_are_no_bytes_are_refused(self, data):
        with pytest.raises(ArgumentException, match=r"data is not a safetensors file"):
            unpack("kind", data)

    @given(st.binary(max_size=200))
    def test_noise_is_refused(self, noise):
        with pytest.raises(ArgumentException):
            unpack("kind", noise)

    @given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
    def test_one_flipped_bit_is_refused_or_gives_an_archive(self, place, bit):
        damaged = bytearray(GOOD)
        damaged[place] ^= 1 << bit
        try:
            arrays, description = unpack("kind", bytes(damaged))
        except ArgumentException:
            return
        assert isinstance(description, dict)
        assert all(isinstance(array, np.ndarray) for array in arrays.values())

    @pytest.mark.parametrize(
        ("data", "found"),
        [(pack("other", {}, {}), "'other'"), (raw({}), "'something else'"), (raw({"__metadata__": {}}), "'something")],
    )
    def test_another_kind_is_refused(self, data, found):
        with pytest.raises(ArgumentException, match=f"file.x holds {found}.*; 'kind' is wanted"):
            unpack("kind", data, "file.x")

    def test_a_description_that_is_no_mapping_is_refused(self):
        with pytest.raises(ArgumentException, match="'kind' is wanted"):
            unpack("kind", raw({"__metadata__": {"kind": "kind", "description": "[]"}}))


class TestFiles:
    def test_hold_what_was_written(self, tmp_path):
        write_file(tmp_path / "a.bin", b"one")
        write_file(str(tmp_path / "a.bin"), b"two")
        assert read_file(tmp_path / "a.bin") == b"two"
        assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]

    def test_a_failed_write_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        write_file(tmp_path / "a.bin", b"old")

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_file(tmp_path / "a.bin", b"new")
        assert read_file(tmp_path / "a.bin") == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]

    def test_have_the_permissions_that_the_user_gives_new_files(self, tmp_path):
        (tmp_path / "ordinary").touch()
        write_file(tmp_path / "ours", b"")
        assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)

    def test_behind_a_symbolic_link_are_the_ones_written(self, tmp_path):
        (tmp_path / "real").touch()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write_file(tmp_path / "link", b"data")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"data"

    def test_may_have_the_longest_names(self, tmp_path):
        write_file(tmp_path / ("n" * 255), b"data")
        assert read_file(tmp_path / ("n" * 255)) == b"data"

    def test_in_no_folder_are_refused(self, tmp_path):
        with pytest.raises(ArgumentException, match=r"filePath is '.*none/a.bin'; there is no folder '.*none'"):
            write_file(tmp_path / "none" / "a.bin", b"")

    def test_that_are_folders_are_refused(self, tmp_path):
        with pytest.raises(ArgumentException, match=r"filePath is '.*', a folder; a file is wanted"):
            write_file(tmp_path, b"")
        with pytest.raises(ArgumentException, match=r"filePath is '.*'; there is no such file"):
            read_file(tmp_path)

    def test_that_are_not_there_are_refused(self, tmp_path):
        with pytest.raises(ArgumentException, match=r"filePath is '.*a.bin'; there is no such file"):
            read_file(tmp_path / "a.bin")
