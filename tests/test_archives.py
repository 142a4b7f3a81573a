"""Archives: what goes in comes out bit for bit; a hostile file raises ArgumentException and does nothing else."""

from __future__ import annotations

import json
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from forged_files import forged, raw, signed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from aidotnet_py import ArgumentException, InvalidOperationException
from aidotnet_py.archives import pack, unpack


def deep_list(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


GOOD = pack("kind", {"w": np.arange(6.0).reshape(2, 3)}, {"name": "n"})


class TestRoundTrip:
    @given(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8]).flatmap(
            lambda kind: hnp.arrays(
                kind,
                hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
                elements=hnp.from_dtype(np.dtype(kind), allow_nan=False, allow_infinity=False),
            )
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
            np.array([1e308, -0.0, 1 / 3, 5e-324]),
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
    "the same name twice": raw(
        b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"1",
    ),
    "metadata twice": raw(
        b'{"__metadata__":{"kind":"other","description":"{}"},"__metadata__":{"kind":"kind","description":"{}"}}'
    ),
    "a hundred axes": raw({"w": {"dtype": "U8", "shape": [1] * 100, "data_offsets": [0, 1]}}, b"1"),
    "a name that is no text": raw(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
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
    "description with a name twice": raw({"__metadata__": {"kind": "kind", "description": '{"a": 1, "a": 2}'}}),
    "description of a huge number": raw({"__metadata__": {"kind": "kind", "description": "1" * 10_000}}),
}


class TestHostile:
    @pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
    def test_bytes_are_refused(self, data):
        with pytest.raises(ArgumentException, match=r"evil\.bin (must be a safetensors file|must hold|is damaged)"):
            unpack("kind", data, "evil.bin")

    def test_a_header_of_100_mb_is_refused(self):
        # Made here: whoever collects the tests would make it as well.
        with pytest.raises(ArgumentException, match=r"evil\.bin (must be a safetensors file|must hold|is damaged)"):
            unpack("kind", raw(b'{"__metadata__":' + b" " * 10**8 + b"{}}"), "evil.bin")

    @pytest.mark.parametrize("data", [None, "text", 3])
    def test_what_are_no_bytes_are_refused(self, data):
        with pytest.raises(ArgumentException, match=r"data must be the bytes of a safetensors file, got (a|None)"):
            unpack("kind", data)

    @given(st.binary(max_size=200))
    def test_noise_is_refused(self, noise):
        with pytest.raises(ArgumentException):
            unpack("kind", noise)

    @pytest.mark.parametrize(
        ("data", "found"),
        [(pack("other", {}, {}), "'other'"), (raw({}), "'another content'"), (raw({"__metadata__": {}}), "'another")],
    )
    def test_another_kind_is_refused(self, data, found):
        with pytest.raises(ArgumentException, match=f"file.x must hold 'kind', got {found}"):
            unpack("kind", data, "file.x")

    def test_a_description_that_is_no_mapping_is_refused(self):
        with pytest.raises(ArgumentException, match=r"must hold a mapping as its description, got \[\]$"):
            unpack("kind", raw({"__metadata__": {"kind": "kind", "description": "[]"}}))


def json_values():
    leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
    return st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
    )


TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F64", "U8", "BF16", "C64", "BOOL", "X", 3]),
        "shape": st.lists(st.integers(-2, 2**64), max_size=4) | json_values(),
        "data_offsets": st.lists(st.integers(-2, 40), min_size=2, max_size=2) | json_values(),
    }
)


class TestHeaders:
    @given(
        st.dictionaries(st.text(max_size=5), TENSOR | json_values(), max_size=3),
        st.dictionaries(
            st.sampled_from(["kind", "description", "format", "library"]), st.sampled_from(["kind", "{}", "2", "[]"])
        )
        | json_values(),
        st.binary(max_size=32),
        st.booleans(),
    )
    def test_of_any_content_are_refused_or_give_finite_arrays(self, tensors, metadata, body, whole):
        if whole and isinstance(metadata, dict):
            data = signed(metadata, tensors, body)
        else:
            data = raw({"__metadata__": metadata, **tensors}, body)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                arrays, description = unpack("kind", data)
            except ArgumentException:
                return
        assert isinstance(description, dict)
        assert all(np.isfinite(array).all() for array in arrays.values())

    def test_that_are_huge_or_deep_take_a_bounded_multiple_of_their_size(self):
        size = 2**20
        bombs = [b"[" * size, b"[{}," * size, b'{"__metadata__":{"kind":"' + b"[" * size, b"[" + b"[]," * size]
        for bomb in bombs:
            tracemalloc.start()
            with pytest.raises(ArgumentException):
                unpack("kind", raw(bomb[:size]))
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert most < 40 * size

    def test_beyond_the_bound_are_never_parsed(self):
        data = raw(b"[" * (2**24 + 1))
        tracemalloc.start()
        with pytest.raises(
            ArgumentException, match="data must be a safetensors file, got a header that is cut off or too long"
        ):
            unpack("kind", data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


class TestDamage:
    """Warnings are errors, so that none of this is taken for a file of an older version either."""

    def test_of_any_one_bit_is_refused(self):
        for place in range(8 * len(GOOD)):
            damaged = bytearray(GOOD)
            damaged[place // 8] ^= 1 << place % 8
            with pytest.raises(ArgumentException):
                unpack("kind", bytes(damaged))

    @given(st.data())
    def test_of_any_bytes_is_refused(self, data):
        start = data.draw(st.integers(0, len(GOOD) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=min(64, len(GOOD) - start)))
        damaged = GOOD[:start] + noise + GOOD[start + len(noise) :]
        if damaged != GOOD:
            with pytest.raises(ArgumentException):
                unpack("kind", damaged)

    @pytest.mark.parametrize("sector", [16, 512])
    def test_a_sector_of_zeros_is_refused(self, sector):
        good = pack("kind", {"w": np.random.default_rng(0).random(512)}, {"name": "n"})
        for start in range(0, len(good) - sector, sector):
            damaged = good[:start] + bytes(sector) + good[start + sector :]
            assert damaged != good
            with pytest.raises(ArgumentException):
                unpack("kind", damaged)

    def test_any_end_that_is_missing_is_refused(self):
        for length in range(len(GOOD)):
            with pytest.raises(ArgumentException):
                unpack("kind", GOOD[:length])

    def test_arrays_that_changed_places_are_refused(self):
        good = pack("kind", {"a": np.zeros(1), "b": np.ones(1)}, {})
        with pytest.raises(ArgumentException, match="its SHA-256 differs from the one that it holds"):
            unpack("kind", good[:-16] + good[-8:] + good[-16:-8])

    def test_what_other_programs_wrote_anew_is_refused(self):
        """They would leave a checksum that belongs to other bytes."""
        header = json.loads(GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")])
        metadata = header["__metadata__"]
        anew = [save(load(GOOD), dict(sorted(metadata.items(), reverse=True)))]
        anew += [save(load(GOOD), {k: v for k, v in metadata.items() if k != dropped}) for dropped in metadata]
        # The library orders metadata at random, and may come upon the order that was there.
        for data in (data for data in anew if data != GOOD):
            with pytest.raises(ArgumentException):
                unpack("kind", data)


class TestFormat:
    def test_has_the_checksum_that_the_docs_describe(self):
        metadata = {"format": "2", "library": "mine", "kind": "kind", "description": '{"a": 1}'}
        arrays, description = unpack(
            "kind", signed(metadata, {"w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"\1\2")
        )
        assert (arrays["w"].tolist(), description) == ([1, 2], {"a": 1})

    def test_is_safetensors_to_others(self):
        assert load(GOOD)["w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        header = json.loads(GOOD[8 : 8 + int.from_bytes(GOOD[:8], "little")])
        assert header["__metadata__"].keys() == {"checksum", "format", "library", "kind", "description"}
        assert header["__metadata__"]["library"].startswith("aidotnet_py ")

    def test_gives_equal_bytes_for_equal_content(self):
        assert len({pack("kind", {"b": np.zeros(2), "a": np.ones(1)}, {"x": 1, "y": [2]}) for _ in range(20)}) == 1

    def test_of_a_later_version_is_refused_by_name(self):
        data = signed({"format": "3", "library": "aidotnet_py 9.0", "kind": "kind", "description": "{}"}, {})
        with pytest.raises(ArgumentException, match=r"file must have format 2, got '3' by 'aidotnet_py 9.0', a later"):
            unpack("kind", data, "file")

    def test_before_checksums_is_read_with_a_warning(self):
        data = save({"w": np.ones(2)}, {"kind": "kind", "description": '{"a": 1}'})
        with pytest.warns(UserWarning, match=r"^file was written by aidotnet_py 0\.1\.0, without") as told:
            arrays, description = unpack("kind", data, "file")
        assert (arrays["w"].tolist(), description) == ([1.0, 1.0], {"a": 1})
        assert [w.filename for w in told] == [__file__]


class TestNumbers:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_that_are_not_finite_are_refused_both_ways(self, value, dtype):
        array = np.ones((2, 3), dtype)
        array[1, 1] = value
        with pytest.raises(InvalidOperationException, match=r"^w must be finite to be saved, got NaN"):
            pack("kind", {"v": np.ones(1), "w": array}, {})
        with pytest.raises(ArgumentException, match=r"^file must hold finite numbers, got NaN or infinity in w$"):
            unpack("kind", forged("kind", {"v": np.ones(1), "w": array}, {}), "file")

    @pytest.mark.parametrize(
        ("arrays", "description"),
        [
            ({"__metadata__": np.zeros(1)}, {}),
            ({"\ud800": np.zeros(1)}, {}),
            ({"w": np.array(["text"])}, {}),
            ({"w": np.array([None])}, {}),
            ({"w": np.zeros(1, np.complex128)}, {}),
            ({}, {"generator": np.random.default_rng(0)}),
            ({}, {"state": {1: "a", "1": "b"}}),
            ({}, {"deep": deep_list(100_000)}),
            ({}, {"long": "x" * 2**24}),
        ],
        ids=[
            *("a reserved name", "a name that is no text", "texts", "objects", "complex", "an object"),
            *("a name that is a number", "deep", "long"),
        ],
    )
    def test_and_else_that_no_file_holds_are_refused(self, arrays, description):
        with pytest.raises(ArgumentException, match="must"):
            pack("kind", arrays, description)
