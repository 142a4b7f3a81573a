"""Omniglot: the real archive, its splits and pixels; hostile archives, folders, images and downloads."""

from __future__ import annotations

import copy
import hashlib
import http.server
import io
import os
import struct
import sys
import threading
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omniglot_files import alphabets, drawing, load, png, write
from PIL import Image
from places import OMNIGLOT

from aidotnet_py.backends import Backend
from aidotnet_py.data import OmniglotLoader
from aidotnet_py.data.download import PublishedFile
from aidotnet_py.data.omniglot import loader as omniglot
from aidotnet_py.data.omniglot.images import open_omniglot
from aidotnet_py.data.safe_folder import SafeFolder
from aidotnet_py.data.safe_zip import ReadLimits, SafeZip
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable

real = pytest.mark.skipif(not OMNIGLOT.exists(), reason="images_background_small1.zip is not here; see docs/data.md")


def names_of(loader: OmniglotLoader[Any]) -> set[str]:
    """All classes: those of one task over everything that there is."""
    state = loader.GetState()
    names: set[str] = set()
    while len(names) < loader.AvailableClasses:
        names.update(loader.GetNextTask().Metadata["Classes"])
    loader.SetState(state)
    return names


# --- the real archive


@real
def test_the_real_archive_is_the_published_one() -> None:
    published = omniglot._ARCHIVES[OMNIGLOT.name]
    assert OMNIGLOT.stat().st_size == published.size
    assert hashlib.sha256(OMNIGLOT.read_bytes()).hexdigest() == published.sha256


@pytest.mark.slow
@real
def test_real_characters_are_all_there() -> None:
    with open_omniglot(OMNIGLOT) as images:
        assert images.alphabets == ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
        assert len(images.members) == 24 + 22 + 24 + 40 + 26
        assert {len(members) for members in images.members.values()} == {20}
    assert OmniglotLoader(OMNIGLOT).AvailableClasses == 4 * 136
    assert OmniglotLoader(OMNIGLOT, split="train", rotations=False).AvailableClasses == 110
    assert OmniglotLoader(OMNIGLOT, split="test").AvailableClasses == 4 * 26
    assert OmniglotLoader(OMNIGLOT, alphabets=["Greek", "Korean"], rotations=False).AvailableClasses == 64


@pytest.mark.slow
@real
def test_real_pixels_are_area_averages_of_ink(backend: Backend) -> None:
    task = OmniglotLoader(OMNIGLOT, NWay=5, KShot=1, QueryShots=15, seed=1, backend=backend).GetNextTask()
    x = backend.to_numpy(task.SupportInput)
    assert x.shape == (5, 28, 28, 1)
    assert x.dtype == np.float32
    assert backend.to_numpy(task.QueryInput).shape == (75, 28, 28, 1)
    assert backend.to_numpy(task.QueryOutput).tolist() == np.repeat(range(5), 15).tolist()
    assert (task.NumWays, task.NumShots, task.NumQueryPerClass, task.Name) == (5, 1, 15, "omniglot")
    for name, image in zip(task.Metadata["Classes"], x[..., 0], strict=True):
        character, _, degrees = name.partition("@")
        with zipfile.ZipFile(OMNIGLOT) as archive:
            candidates = [n for n in archive.namelist() if f"/{character}/" in n and n.endswith(".png")]
            originals = [np.array(Image.open(archive.open(n)).convert("L")) for n in candidates]
        # Every pixel blown up to 4×4, then whole blocks of 15×15 averaged: 105 · 4 = 28 · 15.
        fine = (np.stack(originals) == 0).repeat(4, axis=1).repeat(4, axis=2)
        averages = fine.reshape(-1, 28, 15, 28, 15).mean(axis=(2, 4))
        expected = np.rot90(averages, int(degrees or 0) // 90, axes=(1, 2))
        assert np.abs(expected - image).max(axis=(1, 2)).min() < 1e-7


@pytest.mark.slow
@real
def test_real_tasks_are_alike_from_archive_and_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(OMNIGLOT) as archive:
        archive.extractall(tmp_path, [n for n in archive.namelist() if "/Latin/" in n or "/Greek/" in n])
    packed = OmniglotLoader(OMNIGLOT, seed=3, alphabets=("Latin", "Greek")).GetNextTask()
    for folder in (tmp_path, tmp_path / "images_background_small1"):
        unpacked = OmniglotLoader(folder, seed=3).GetNextTask()
        assert unpacked.Metadata == packed.Metadata
        np.testing.assert_array_equal(unpacked.QueryInput, packed.QueryInput)


# --- splits, classes, options


def test_splits_divide_the_sorted_alphabets(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", alphabets("F", "B", "A", "D", "C", "E"))
    parts = {split: names_of(load(path, split=split, rotations=False)) for split in ("train", "test", None)}
    assert {name.split("/")[0] for name in parts["train"]} == {"A", "B", "C", "D"}
    assert {name.split("/")[0] for name in parts["test"]} == {"E", "F"}
    assert parts["train"] | parts["test"] == parts[None]
    assert len(parts[None]) == 12


def test_turned_characters_stay_with_their_alphabet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", alphabets("A", "B"))
    loader = load(path, split="test")
    assert loader.AvailableClasses == 8
    assert names_of(loader) == {f"B/character0{c}{turn}" for c in (1, 2) for turn in ("", "@90", "@180", "@270")}


def test_it_is_the_contracts_loader_and_resumes(tmp_path: Path) -> None:
    loader = load(write(tmp_path / "a.zip", alphabets("A", "B")), dtype=np.float64)
    assert isinstance(loader, IEpisodicDataLoader)
    assert isinstance(loader, IResumable)
    state = loader.GetState()
    first = loader.GetTaskBatch(3)
    loader.SetState(state)
    for a, b in zip(first, loader.GetTaskBatch(3), strict=True):
        np.testing.assert_array_equal(a.SupportInput, b.SupportInput, strict=True)
    assert first[0].SupportInput.dtype == np.float64


def test_full_ink_is_one_and_paper_zero(tmp_path: Path) -> None:
    ink = np.zeros((105, 105), bool)
    ink[:15, :30] = True  # four cells by eight
    members = {f"A/character0{c}/{i}.png": png(ink) for c in (1, 2) for i in range(2)}
    task = load(write(tmp_path / "a.zip", members), NWay=2, QueryShots=1, rotations=False).GetNextTask()
    expected = np.zeros((28, 28), np.float32)
    expected[:4, :8] = 1
    np.testing.assert_array_equal(task.SupportInput[0, :, :, 0], expected)


def see_through(kind: str, ink: np.ndarray) -> Image.Image:
    """Black ink on paper that is transparent, and black there too, in one of PNG's ways to say so."""
    black = np.zeros(ink.shape, np.uint8)
    alpha = np.where(ink, 255, 0).astype(np.uint8)
    if kind == "RGBA":
        return Image.fromarray(np.stack([black, black, black, alpha], -1), "RGBA")
    if kind == "LA":
        return Image.fromarray(np.stack([black, alpha], -1), "LA")
    # In these, one colour counts as transparent: index or grey 7, which is dark.
    image = Image.fromarray(np.where(ink, 0, 7).astype(np.uint8), "L")
    if kind == "P":
        image.putpalette([0] * 768)
    elif kind == "RGB":
        image = image.convert("RGB")
    image.info["transparency"] = (7, 7, 7) if kind == "RGB" else 7
    return image


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", ["RGBA", "LA", "L", "P", "RGB"])
def test_transparent_paper_is_paper(tmp_path: Path, kind: str) -> None:
    plain, transparent = {}, {}
    for name, i in ((f"A/character0{c}/{i}.png", i) for c in (1, 2) for i in range(2)):
        file = io.BytesIO()
        image = see_through(kind, drawing(i))
        image.save(file, "png", transparency=image.info.get("transparency"))
        transparent[name], plain[name] = file.getvalue(), png(drawing(i))
    seen, wanted = (
        load(write(tmp_path / f"{n}.zip", members), NWay=2, QueryShots=1, rotations=False).GetNextTask()
        for n, members in enumerate((transparent, plain))
    )
    assert 0 < wanted.SupportInput.mean() < 0.5
    np.testing.assert_array_equal(seen.SupportInput, wanted.SupportInput)


@pytest.mark.parametrize(("alpha", "ink"), [(0, 0.0), (127, 0.0), (128, 1.0), (255, 1.0)])
def test_ink_that_lets_the_paper_through_is_as_dark_as_both_together(tmp_path: Path, alpha: int, ink: float) -> None:
    """Black at an opacity of a/255 over white is 255 − a; below 128 it is ink."""
    pixels = np.zeros((105, 105, 4), np.uint8)
    pixels[..., 3] = alpha
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    members = {f"A/character0{c}/{i}.png": file.getvalue() for c in (1, 2) for i in range(2)}
    task = load(write(tmp_path / "a.zip", members), NWay=2, QueryShots=1, rotations=False).GetNextTask()
    assert (task.SupportInput == ink).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"NWay": 1}, ArgumentOutOfRangeException, "NWay must be a whole number of at least 2, got 1"),
        ({"NWay": 17}, ArgumentOutOfRangeException, "NWay must be at most 16, the number of classes, got 17"),
        ({"KShot": 2}, ArgumentException, r"got 2 \+ 2 = 4; .* fewer examples are 'A/character01' \(3\), "),
        ({"split": "all"}, ArgumentException, "split must be 'train', 'test' or None, got 'all'"),
        (
            {"split": "test", "alphabets": ["A"]},
            ArgumentException,
            r"split must be None if alphabets is given, got 'test' and \['A'\]",
        ),
        ({"alphabets": "A"}, ArgumentException, "alphabets must be a sequence of names, got 'A'"),
        ({"alphabets": []}, ArgumentException, r"alphabets must be one or more of A, B, got \[\]"),
        (
            {"alphabets": ["A", "Klingon"]},
            ArgumentException,
            r"alphabets must be one or more of A, B, got \['A', 'Klingon'\]",
        ),
        ({"rotations": None}, ArgumentException, "rotations must be True or False, got None"),
        ({"source": 3}, ArgumentException, "source must be the path of an archive or a folder, got 3"),
        ({"source": "no/such.zip"}, FileNotFoundError, "source must be an existing zip .* got nothing: 'no/such.zip'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = write(tmp_path / "a.zip", alphabets("A", "B"))
    with pytest.raises(error, match=message):
        load(**{"path": options.pop("source", path), **options})


def test_counts_are_checked_before_any_image_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", alphabets("A"))
    monkeypatch.setattr(SafeZip, "read", lambda self, name: pytest.fail("read an image"))
    with pytest.raises(ArgumentException, match="fewer examples"):
        load(path, KShot=9)


def test_one_alphabet_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(ArgumentException, match="split must be None for a source with one alphabet, A, got 'train'"):
        load(write(tmp_path / "a.zip", alphabets("A")), split="train")


def test_a_missing_pillow_is_answered_with_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", alphabets("A"))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'Pillow: pip install "aidotnet-py\[data\]"'):
        load(path)


# --- layout


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"set/A/readme.txt": b"hi"},
            r"a.zip: names must be like 'Alphabet/character01/0001_01.png', .* got 'set/A/readme.txt'",
        ),
        ({"set/A/character01/notes.txt": b"hi"}, "names must be .*notes.txt'"),
        ({"set/A/0001_01.png": b"x", "other.png": b""}, "names must be .*, got 'other.png'"),
        ({"x/set/A/character01/1.png": b""}, "names must be .*x/set/A/character01/1.png'"),
        ({"twin/A/character01/1.png": b""}, "a.zip must hold one set, got set, twin"),
    ],
)
def test_a_layout_that_is_not_omniglots_is_refused(tmp_path: Path, extra: dict[str, bytes], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        load(write(tmp_path / "a.zip", alphabets("A") | extra))


def test_macos_clutter_is_passed_over(tmp_path: Path) -> None:
    clutter = {"set/.DS_Store": b"x", "set/A/.DS_Store": b"x", "__MACOSX/set/A/character01/._0001_01.png": b"x"}
    assert load(write(tmp_path / "a.zip", alphabets("A") | clutter)).AvailableClasses == 8


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentException, match=r"a\.zip must hold images, got none"):
        load(write(tmp_path / "a.zip", {}))


# --- hostile archives

IMAGE = "set/A/character01/0001_01.png"


def patched(path: Path, field: int, form: str, value: int) -> Path:
    """The archive with one field of its first central directory record overwritten."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + field, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.png", "member '../evil.png' must not lead out of the archive"),
        ("set/../../evil.png", "must not lead out of the archive"),
        ("/etc/evil.png", "member '/etc/evil.png' must not lead out of the archive"),
        ("set\\evil.png", "must have a name without backslash, drive letter"),
        ("C:/evil.png", "must have a name without backslash, drive letter"),
        ("C:evil.png", "must have a name without backslash, drive letter"),
        ("set//evil.png", "must have a name without empty parts"),
        ("./evil.png", "must have a name without empty parts"),
        ("../", "must not lead out of the archive"),
    ],
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        load(write(tmp_path / "a.zip", {**alphabets("A"), name: b""}))


def test_a_null_character_in_a_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"set/evil?.png": b""})
    path.write_bytes(path.read_bytes().replace(b"evil?", b"evil\0"))
    with pytest.raises(ArgumentException, match="must have a name without backslash, drive letter and null character"):
        load(path)


@pytest.mark.parametrize(
    ("mode", "message"),
    [(0o120777, "must be a file or a folder, got a symbolic link"), (0o010644, "must be .*, got something else")],
)
def test_links_and_pipes_are_refused(tmp_path: Path, mode: int, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo(IMAGE)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArgumentException, match=f"a.zip: member '{IMAGE}' {message}"):
        load(tmp_path / "a.zip")


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(IMAGE, png())
        archive.writestr(IMAGE, png(drawing(1)))
    with pytest.raises(ArgumentException, match=f"member '{IMAGE}' must have another name than other members"):
        load(tmp_path / "a.zip")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_members_are_refused(tmp_path: Path, flag: int) -> None:
    path = patched(write(tmp_path / "a.zip", {IMAGE: png()}), 8, "<H", flag)
    with pytest.raises(ArgumentException, match=f"member '{IMAGE}' must not be encrypted"):
        load(path)


def test_other_compression_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentException, match="must be stored or deflated, got compression method 12"):
        load(write(tmp_path / "a.zip", {IMAGE: png()}, zipfile.ZIP_BZIP2))


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {IMAGE: bytes(60_000)})
    with pytest.raises(
        ArgumentException, match=f"member '{IMAGE}' must unpack to at most 100 times its size, got .* bytes for 60000"
    ):
        load(path)


def test_limits_of_size_and_number_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {"a": bytes(range(100)), "b": bytes(range(100))}, zipfile.ZIP_STORED)
    size = path.stat().st_size
    for limits, message in (
        (ReadLimits(archive_bytes=size - 1), f"a.zip must have at most {size - 1} bytes, got {size}"),
        (ReadLimits(members=1), "a.zip must have at most 1 members, got 2"),
        (ReadLimits(member_bytes=99), "member 'a' must have at most 99 bytes, got 100"),
        (ReadLimits(total_bytes=199), "a.zip must unpack to at most 199 bytes, got 200"),
    ):
        with pytest.raises(ArgumentException, match=message):
            SafeZip(path, limits)
    with SafeZip(path, ReadLimits(size, 2, 100, 200, 1)) as archive:
        assert archive.read("b") == bytes(range(100))
        assert archive.read("b") == bytes(range(100))
        with pytest.raises(ArgumentException, match="member 'a' must keep all files within 200 bytes, got more"):
            archive.read("a")


def test_a_header_that_understates_a_bomb_is_found_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {IMAGE: bytes(5_000_000)})
    with SafeZip(patched(path, 24, "<I", 100)) as archive, pytest.raises(ArgumentException, match="must be readable"):
        archive.read(IMAGE)


def test_a_header_that_overstates_is_found_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", {IMAGE: png()})
    with (
        SafeZip(patched(path, 24, "<I", len(png()) + 1)) as archive,
        pytest.raises(ArgumentException, match=f"must have the {len(png()) + 1} bytes of its header, got {len(png())}"),
    ):
        archive.read(IMAGE)


def test_members_that_share_their_data_are_refused(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(10_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("set/A/c/0.png", data)
        for i in range(1, 3):
            twin = copy.copy(archive.filelist[0])
            twin.filename = f"set/A/c/{i}.png"
            archive.filelist.append(twin)
    with pytest.raises(ArgumentException, match=r"a\.zip must have members that do not overlap"):
        load(tmp_path / "a.zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_what_is_no_zip_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArgumentException, match=r"a\.zip must be a readable zip archive"):
        load(tmp_path / "a.zip")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", alphabets("A"), zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(ArgumentException, match=r"0001_01\.png' must be readable: BadZipFile\(.Bad CRC-32"):
        load(path)


@pytest.mark.slow
def test_garbled_archives_give_tasks_or_refusals_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", alphabets("A", characters=1))
    sound = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        data = np.frombuffer(sound, np.uint8).copy()
        # Headers are few among the bytes: half of the blows go to the directory at the end.
        start = generator.choice([0, sound.index(b"PK\x01\x02")])
        places = generator.integers(start, len(data), generator.integers(1, 4))
        data[places] = generator.integers(0, 256, len(places))
        path.write_bytes(data[: len(data) - generator.choice([0, 0, 0, 30])].tobytes())
        try:
            assert load(path).GetNextTask().QueryInput.shape == (4, 28, 28, 1)
        except ArgumentException:
            refused += 1
    assert refused > 200


def test_nothing_is_written_beside_an_archive(tmp_path: Path) -> None:
    load(write(tmp_path / "a.zip", alphabets("A")))
    assert os.listdir(tmp_path) == ["a.zip"]


# --- hostile images


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))


SIGNATURE = png()[:8]
BODY = png()[33:]


def raw_png(pixels: bytes, depth: int = 1, color: int = 0, palette: bytes = b"", extra: bytes = b"") -> bytes:
    """An image of 105×105 pixels, whatever its parts are."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 105, 105, depth, color, 0, 0, 0))
    colors = chunk(b"PLTE", palette) if palette else b""
    return SIGNATURE + head + colors + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def rows(count: int, bits: int = 1, value: int = 255) -> bytes:
    return zlib.compress((b"\0" + bytes([value]) * -(-105 * bits // 8)) * count)


def first_image(path: Path, data: bytes) -> np.ndarray:
    with open_omniglot(write(path / "one.zip", {"A/character01/1.png": data}, zipfile.ZIP_STORED)) as images:
        return images.read_character("A/character01")[0]


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["1", "L", "RGB", "P", "I;16", "RGBA", "LA", "RGBA paper", "LA paper", "L key", "RGB key", "P key", "I;16 key"],
)
def test_what_is_read_is_what_was_drawn(tmp_path: Path, kind: str) -> None:
    ink = drawing(3)
    grey = Image.fromarray(np.where(ink, 0, 255).astype(np.uint8))
    mode, _, how = kind.partition(" ")
    options: dict[str, Any] = {}
    if how == "paper":  # black throughout, and transparent but for the ink
        shades = np.zeros((105, 105, len(mode)), np.uint8)
        shades[..., -1] = np.where(ink, 255, 0)
        image = Image.fromarray(shades)
    elif mode == "I;16":  # the darkest paper that is no ink, where it is not transparent
        image = Image.fromarray(np.where(ink, 32767, 0 if how else 32768).astype(np.uint16))
        options = {"transparency": 0} if how else {}
    elif how == "key":  # black paper, which the file says is transparent
        levels = np.where(ink, 40, 0).astype(np.uint8)
        image = Image.fromarray(levels).convert(mode)
        options = {"transparency": {"L": 0, "P": 0, "RGB": (0, 0, 0)}[mode]}
    else:
        image = grey.convert(mode)
    np.testing.assert_array_equal(first_image(tmp_path, saved(image, **options)), first_image(tmp_path, png(ink)))


def test_interlaced_images_are_read(tmp_path: Path) -> None:
    """Seven passes of white, 1 bit a pixel: their rows, by the standard's table of first pixels and steps."""
    sizes = [(14, 14), (13, 14), (27, 13), (26, 27), (53, 26), (52, 53), (105, 52)]
    pixels = b"".join((b"\0" + b"\xff" * -(-width // 8)) * height for width, height in sizes)
    data = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 105, 105, 1, 0, 0, 0, 1))
    data += chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    assert not first_image(tmp_path, data).any()


def test_texts_in_images_are_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte of text may inflate to a megabyte, a thousand times."""
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))
    ink = drawing(5)
    data = png(ink)
    monkeypatch.setattr("PIL.PngImagePlugin.PngStream.chunk_zTXt", lambda *a: pytest.fail("a text was read"))
    found = first_image(tmp_path, data[:33] + 20 * bomb + data[33:])
    np.testing.assert_array_equal(found, first_image(tmp_path, png(ink)))


@pytest.mark.slow
def test_memory_depends_on_what_is_kept(tmp_path: Path) -> None:
    """The images of a class are decoded some at a time: as float32 of full size, these would take 44 MB."""
    data = png()
    path = write(tmp_path / "a.zip", {f"A/character01/{i:05}.png": data for i in range(1_000)}, zipfile.ZIP_STORED)
    with open_omniglot(path) as images:
        tracemalloc.start()
        try:
            kept = images.read_character("A/character01")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept.shape == (1_000, 28, 28)
    assert peak < 16 * 2**20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF89a" + bytes(50), r"a\.zip: 'set/A/character01/1\.png' must be a PNG image"),
        (b"", "must be a PNG image"),
        (SIGNATURE, "1.png' must be whole, got the beginning alone"),
        (SIGNATURE + BODY, "must begin with a header"),
        (png(size=28), "must have 105×105 pixels, got 28×28"),
        (SIGNATURE + header(2**31 - 1, 2**31 - 1) + BODY, "must have 105×105 pixels, got 2147483647×2147483647"),
        (SIGNATURE + header(105, 105) + header(9000, 9000) + BODY, "must have one header, got several"),
        (SIGNATURE + header(105, 105), "must be whole, got the beginning alone"),
        (png(drawing(0))[:-40], "must be whole, got the beginning alone"),
        (png().replace(b"IDAT", b"IDAX"), "is damaged: a chunk b'IDAX' has a wrong checksum"),
        (raw_png(b"nonsense"), "is damaged: its pixels cannot be unpacked"),
        (raw_png(rows(104)), r"must have 1575 bytes of pixels, got 1560"),
        (raw_png(rows(105)[:-9]), r"must have 1575 bytes of pixels, got \d+$"),
        (raw_png(rows(106)), r"must have 1575 bytes of pixels, got more than 1575"),
        (raw_png(zlib.compress(bytes(5_000_000))), "must have 1575 bytes of pixels, got more than 1575"),
        (raw_png(rows(105), color=3), "must have a palette for its pixels, got none"),
        (raw_png(rows(105, 8), depth=8, color=3, palette=bytes(3)), "must have pixels of its palette alone"),
        (raw_png(rows(105), depth=3), "must have a valid header, got impossible values"),
        (raw_png(rows(105), color=5), "must have a valid header, got impossible values"),
        (raw_png(rows(105, 2), depth=2, color=2), "must have 8400 bytes of pixels, got 2940"),
        (raw_png(rows(105, 8), depth=4, color=4), "1.png' must be decodable$"),
    ],
)
def test_images_that_are_not_omniglots_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    members = {"set/A/character01/1.png": data, "set/A/character01/2.png": png()}
    with pytest.raises(ArgumentException, match=message):
        load(write(tmp_path / "a.zip", members, zipfile.ZIP_STORED), NWay=2, QueryShots=1)


def test_garbled_images_give_tasks_or_refusals_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    sound = png(drawing(0))
    generator = np.random.default_rng(1)
    refusals = []
    for _ in range(300):
        data = np.frombuffer(sound, np.uint8).copy()
        # The chunks' headers are at the front and the end.
        places = generator.integers(0, 60, 2) - generator.choice([0, 30])
        data[places] = generator.integers(0, 256, 2)
        members = {f"A/c/{i}.png": d for i, d in enumerate((data.tobytes(), sound))}
        try:
            load(write(path, members, zipfile.ZIP_STORED), NWay=2, QueryShots=1)
        except ArgumentException as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all("0.png" in message for message in refusals)


# --- hostile folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "unpacked"
    with zipfile.ZipFile(write(tmp_path / "a.zip", alphabets("A", "B"))) as archive:
        archive.extractall(root)
    return root


def test_a_folder_reads_as_its_archive_does(folder: Path) -> None:
    archive = load(folder.parent / "a.zip").GetNextTask()
    np.testing.assert_array_equal(load(folder).GetNextTask().QueryInput, archive.QueryInput)
    np.testing.assert_array_equal(load(folder / "set").GetNextTask().QueryInput, archive.QueryInput)


def link_file(folder: Path) -> None:
    outside = folder.parent / "outside.png"
    outside.write_bytes(png())
    (folder / "set/A/character01/0009_01.png").symlink_to(outside)


def link_folder(folder: Path) -> None:
    (folder / "set/C").symlink_to(folder / "set/A", target_is_directory=True)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "set/A/character01/0009_01.png")


def deep(folder: Path) -> None:
    (folder / "set/A/character01/more").mkdir()


def large(folder: Path) -> None:
    (folder / "set/A/character01/0001_02.png").write_bytes(png() + bytes(1 << 16))


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_file, r"0009_01\.png must be a file or a folder, got a symbolic link"),
        (link_folder, r"set/C must be a file or a folder, got a symbolic link"),
        (pipe, r"0009_01\.png must be a file or a folder, got something else"),
        (deep, "more must be a file, got a folder deeper than any of the data set"),
        (large, r"0001_02\.png must have at most 65536 bytes, and all files \d+, got more"),
    ],
)
def test_folders_are_not_trusted_either(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(ArgumentException, match=message):
        load(folder)


def test_folders_have_limits_of_number_and_size(folder: Path) -> None:
    with pytest.raises(ArgumentException, match="must hold at most 5 files and folders"):
        SafeFolder(folder, ReadLimits(members=5))
    files = SafeFolder(folder, ReadLimits(total_bytes=len(png(drawing(11)))))
    files.read(IMAGE)
    with pytest.raises(ArgumentException, match=r"must have at most \d+ bytes, and all files \d+, got more"):
        files.read(IMAGE)
    (folder / IMAGE).unlink()
    with pytest.raises(ArgumentException, match=r"0001_01\.png must be readable"):
        files.read(IMAGE)


# --- downloads, over loopback


class Handler(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/missing":
            self.send_error(404)
            return
        sent = {"/cut": self.content[:-7], "/short": self.content[:-7], "/long": self.content + b"x"}
        body = sent.get(self.path, self.content)
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(self.content) if self.path == "/cut" else len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/endless":
            self._pour()

    def _pour(self) -> None:
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.server.requests.append("hung up")  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    Handler.content = write(tmp_path / "served.zip", alphabets("A", "B")).read_bytes()
    (tmp_path / "served.zip").unlink()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, server: Any, path: str, sha256: str | None = None) -> None:
    digest = sha256 or hashlib.sha256(Handler.content).hexdigest()
    file = PublishedFile(f"http://127.0.0.1:{server.server_port}{path}", len(Handler.content), digest)
    monkeypatch.setattr(omniglot, "_ARCHIVES", {"images.zip": file})


def test_a_download_is_fetched_once_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    publish(monkeypatch, server, "/good")
    path = tmp_path / "images.zip"
    with pytest.raises(FileNotFoundError, match="download=True fetches published archives"):
        load(path)
    assert server.requests == []
    assert load(path, download=True).AvailableClasses == 16
    assert load(path, download=True).AvailableClasses == 16
    assert server.requests == ["/good"]
    assert path.read_bytes() == Handler.content
    assert os.listdir(tmp_path) == ["images.zip"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/cut", r"must have \d+ bytes, got \d+$|failed: .*IncompleteRead"),
        ("/short", r"/short must have \d+ bytes, got \d+$"),
        ("/long", r"/long must have \d+ bytes, got more than \d+$"),
        ("/endless", r"must have \d+ bytes, got more than \d+$"),
        ("/missing", "/missing failed: 404 Client Error"),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, address: str, message: str
) -> None:
    publish(monkeypatch, server, address)
    with pytest.raises(InvalidOperationException, match=message):
        load(tmp_path / "images.zip", download=True)
    assert os.listdir(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    publish(monkeypatch, server, "/good", sha256="0" * 64)
    with pytest.raises(
        InvalidOperationException,
        match=r"/good failed: SHA256 hash of .*: expected sha256:0{64} but got [0-9a-f]{64}\.",
    ):
        load(tmp_path / "images.zip", download=True)
    assert os.listdir(tmp_path) == []


def test_a_server_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    file = PublishedFile("http://127.0.0.1:1/images.zip", 1, "0")
    monkeypatch.setattr(omniglot, "_ARCHIVES", {"images.zip": file})
    with pytest.raises(InvalidOperationException, match=r"127\.0\.0\.1:1/images\.zip failed: "):
        load(tmp_path / "images.zip", download=True)


def test_a_download_has_the_mode_of_other_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    publish(monkeypatch, server, "/good")
    load(tmp_path / "images.zip", download=True)
    (tmp_path / "other").touch()
    assert (tmp_path / "images.zip").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_missing_pooch_is_answered_with_the_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there needs neither pooch nor a network."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pooch: pip install "aidotnet-py\[data\]"'):
        load(tmp_path / "images_background.zip", download=True)
    assert os.listdir(tmp_path) == []
    path = write(tmp_path / "images_background.zip", alphabets("A"))
    assert load(path, download=True).AvailableClasses == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.zip", "source must be one of images_background.zip, images_evaluation.zip, images_background_small1"),
        ("none/images_background.zip", "source must lie in an existing folder for a download, .*; make '.*none'"),
    ],
)
def test_a_download_that_cannot_be_is_refused_unasked_of_the_network(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        load(tmp_path / name, download=True)
