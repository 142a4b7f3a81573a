"""Folders of images as tasks: sizes and modes, published layouts, the cache, hostile content, and bounded memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from places import ROOT

from aidotnet_py import CrossEntropyLoss, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import ImageEncoding, ImageFolderLoader
from aidotnet_py.data.image_folder.decoding import ImageForm
from aidotnet_py.data.pixels import ImageError
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.nn import Dense, Flatten, Sequential

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")
RED, BLUE = (255, 0, 0), (0, 0, 255)


def photo(shade: int, number: int = 0) -> Image.Image:
    """A photograph whose colour says its class and whose size says its number."""
    return Image.new("RGB", (30 + number, 20 + 2 * number), (10 * shade, 200, 255 - 10 * shade))


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def fill(folder: Path, classes: int = 4, images: int = 5, inside: str = "", apart: int = 1) -> Path:
    """Write class folders, with PNG and JPEG files of different sizes."""
    for c in range(classes):
        own = folder / inside / f"kind {c}"
        own.mkdir(parents=True)
        for i in range(images):
            kind = ("png", "jpeg")[i % 2]
            options = {} if kind == "png" else {"quality": 100, "subsampling": 0}
            (own / f"{i}.{kind}").write_bytes(encoded(photo(apart * c, i), kind, **options))
    return folder


def load(folder: Path, *sizes: int, **options: Any) -> ImageFolderLoader[Any]:
    arguments = {"size": 8, "cache": folder.parent / "cache", "seed": 0} | options
    return ImageFolderLoader(folder, *(sizes or (3, 1, 2)), **arguments)


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def pixels(data: bytes, size: int | tuple[int, int] = 8, fit: str = "crop", color: bool = True) -> np.ndarray:
    height, width = size if isinstance(size, tuple) else (size, size)
    return ImageForm(height, width, fit, color).decode(data).astype(int)


class TestTasks:
    def test_it_is_the_contracts_loader(self, tmp_path: Path) -> None:
        loader = load(fill(tmp_path / "photos"))
        assert isinstance(loader, IEpisodicDataLoader)
        assert isinstance(loader, IResumable)
        assert (loader.NWay, loader.KShot, loader.QueryShots, loader.AvailableClasses) == (3, 1, 2, 4)
        task = loader.GetNextTask()
        assert (task.Name, task.SupportInput.dtype, task.SupportOutput.dtype) == ("photos", np.float32, np.int64)
        # A long path is cut.
        assert repr(loader).startswith(f"ImageFolderLoader('{tmp_path}"[:40])
        assert loader.left_out == {}

    def test_every_image_is_one_of_its_class(self, tmp_path: Path) -> None:
        for task in load(fill(tmp_path / "photos")).GetTaskBatch(20):
            inputs = np.concatenate([task.SupportInput, task.QueryInput])
            labels = np.concatenate([task.SupportOutput, task.QueryOutput])
            assert inputs.shape == (9, 8, 8, 3)
            for image, label in zip(inputs, labels, strict=True):
                shade = int(task.Metadata["Classes"][label].removeprefix("kind "))
                np.testing.assert_allclose(
                    image * 255, np.broadcast_to([10 * shade, 200, 255 - 10 * shade], (8, 8, 3)), atol=2
                )

    def test_the_same_seed_gives_the_same_bits_on_every_backend(self, tmp_path: Path, backend: Backend) -> None:
        folder = fill(tmp_path / "photos")
        host, device = load(folder, rotations=True), load(folder, rotations=True, backend=backend)
        for count in (2, 2, 2, 1):
            assert bits(device.GetTaskBatch(count), backend.name) == bits(host.GetTaskBatch(count))
        assert device.GetState() == host.GetState()

    @pytest.mark.parametrize("weighting", ["uniform", "balanced", "proportional"])
    def test_a_saved_position_goes_through_json_and_resumes(self, tmp_path: Path, weighting: Any) -> None:
        loader = load(fill(tmp_path / "photos"), weighting=weighting)
        loader.GetTaskBatch(3)
        state, copy = json.loads(json.dumps(loader.GetState())), pickle.loads(pickle.dumps(loader))
        wanted = bits(loader.GetTaskBatch(4))
        again = load(tmp_path / "photos", weighting=weighting, seed=5)
        again.SetState(state)
        assert bits([again.GetNextTask() for _ in range(4)]) == bits(copy.GetTaskBatch(4)) == wanted

    def test_a_split_divides_classes_with_their_turns(self, tmp_path: Path) -> None:
        train, test = load(fill(tmp_path / "photos", classes=6), rotations=True).split(4, 2)
        assert (train.AvailableClasses, test.AvailableClasses) == (16, 8)
        seen = [
            {name.split("@")[0] for task in part.GetTaskBatch(50) for name in task.Metadata["Classes"]}
            for part in (train, test)
        ]
        assert not seen[0] & seen[1]
        assert len(seen[0] | seen[1]) == 6

    def test_no_class_has_the_name_of_a_turned_one(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "kind 1").rename(folder / "kind 0@270")
        with pytest.raises(ArgumentException, match=r"^classes must have .*, got 'kind 0@270' beside 'kind 0'; rename"):
            load(folder, rotations=True)
        assert load(folder).AvailableClasses == 4

    @pytest.mark.slow
    def test_a_learner_tells_the_classes_apart(self, tmp_path: Path) -> None:
        loader = load(fill(tmp_path / "photos", apart=8), 2, 1, 2)
        model: NeuralNetworkModel[Any] = NeuralNetworkModel(
            Sequential(Flatten(), Dense(2)), input_shape=(8, 8, 3), loss=CrossEntropyLoss(), seed=0
        )
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, NumMetaIterations=30, InnerLearningRate=0.02))
        learner.Train()
        assert learner.Evaluate(20).AccuracyStats.Mean > 0.9


class TestImages:
    @pytest.mark.parametrize(
        ("image", "kind", "wanted"),
        [
            (Image.new("RGB", (9, 5), RED), "png", [255, 0, 0]),
            (Image.new("L", (9, 5), 77), "png", [77, 77, 77]),
            (Image.new("1", (9, 5), 1), "png", [255, 255, 255]),
            (Image.new("RGBA", (9, 5), (*RED, 0)), "png", [255, 255, 255]),
            (Image.new("RGBA", (9, 5), (*RED, 255)), "png", [255, 0, 0]),
            (Image.new("LA", (9, 5), (0, 0)), "png", [255, 255, 255]),
            (Image.new("RGB", (9, 5), BLUE).convert("P"), "png", [0, 0, 255]),
            (Image.fromarray(np.full((5, 9), 0x4D00, np.uint16)), "png", [77, 77, 77]),
            (Image.new("L", (9, 5), 77), "jpeg", [77, 77, 77]),
            (Image.new("CMYK", (9, 5), (0, 255, 255, 0)), "jpeg", [254, 0, 0]),
            (Image.new("RGB", (300, 200), (10, 20, 30)), "jpeg", [10, 20, 30]),
        ],
        ids=["RGB", "L", "1", "clear", "opaque", "LA", "palette", "16 bits", "grey JPEG", "CMYK", "large JPEG"],
    )
    def test_modes(self, image: Image.Image, kind: str, wanted: list[int]) -> None:
        data = encoded(image, kind)
        found = pixels(data)
        assert found.shape == (8, 8, 3)
        assert abs(found - np.array(wanted)).max() <= 2
        assert pixels(data, color=False).shape == (8, 8, 1)

    def test_fits(self) -> None:
        # Black, a wide middle of white, black.
        wide = np.full((10, 40), 255, np.uint8)
        wide[:, :10] = wide[:, 30:] = 0
        data = encoded(Image.fromarray(wide))
        assert pixels(data, 10, "crop", color=False).min() == 255
        stretched = pixels(data, 20, "stretch", color=False)[..., 0]
        assert (stretched[:, :4] == 0).all()
        assert (stretched[:, 6:14] == 255).all()
        padded = pixels(data, 40, "pad", color=False)[..., 0]
        assert (padded[:14] == 255).all()
        assert (padded[17:23, :8] == 0).all()
        assert pixels(data, (5, 20), "stretch").shape == (5, 20, 3)

    @pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (3, 1000), (8, 8), (9, 40), (40, 9), (11, 13)])
    def test_padding_is_pillows_and_leaves_a_pixel_of_a_thin_image(self, shape: tuple[int, int]) -> None:
        image = Image.new("L", shape[::-1])
        found = pixels(encoded(image), 20, "pad", color=False)[..., 0]
        assert (found == 0).sum() >= 20
        if max(shape) < 1000:
            noise = Image.effect_noise(shape[::-1], 60)
            wanted = np.asarray(ImageOps.pad(noise, (20, 20), Image.Resampling.BILINEAR, color="white"))
            np.testing.assert_array_equal(pixels(encoded(noise), 20, "pad", color=False)[..., 0], wanted)

    @pytest.mark.parametrize("kind", ["png", "jpeg"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, kind: str, orientation: int) -> None:
        upright = np.zeros((16, 16), np.uint8)
        upright[:8, :8] = 255
        upright[8:, :8] = 120
        # How a camera stores an upright scene, by the orientation that it notes.
        stored = {
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.T,
            6: lambda a: np.rot90(a, 1),
            7: lambda a: a[::-1, ::-1].T,
            8: lambda a: np.rot90(a, -1),
        }[orientation](upright)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
        assert abs(pixels(data, 16, color=False)[..., 0] - upright).max() <= 12

    def test_damaged_exif_data_are_no_warning(self) -> None:
        exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x12"
        data = encoded(Image.new("RGB", (9, 5), RED), "jpeg", exif=exif)
        assert abs(pixels(data) - np.array(RED)).max() <= 2


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_checksums(data: bytes) -> bytes:
    """A PNG whose damaged chunks have the checksums of their content, so that the damage goes further."""
    place, whole = 8, data[:8]
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        whole += chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length])
        place += 12 + length
    return whole


def huge_png(side: int = 50_000, rows: int = 2000) -> bytes:
    """A PNG that says that it is huge, with the first rows."""
    packed = zlib.compress(bytes((1 + 3 * side) * rows // 100), 9)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def huge_jpeg(side: int) -> bytes:
    """A JPEG that says that it is huge."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "jpeg"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", side, side)
    return bytes(data)


FILES = [
    encoded(Image.effect_noise((20, 14), 60).convert(mode), kind, **options)
    for mode, kind, options in [
        ("RGB", "png", {}),
        ("P", "png", {}),
        ("RGBA", "png", {}),
        ("L", "jpeg", {"exif": bytes([*b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"])}),
        ("RGB", "jpeg", {"progressive": True}),
    ]
]


def png(depth: int, colour: int, samples: bytes, transparent: int) -> bytes:
    """A PNG of one row of four pixels, with a transparent shade, or colour of three such shades."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, depth, colour, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(">H", transparent) * (3 if colour else 1))
    return b"\x89PNG\r\n\x1a\n" + header + clear + chunk(b"IDAT", zlib.compress(b"\0" + samples)) + chunk(b"IEND", b"")


class TestTransparentShades:
    @pytest.mark.parametrize(
        ("depth", "samples", "transparent", "wanted"),
        [
            (1, bytes([0b01010000]), 0, [255, 255, 255, 255]),
            (2, bytes([0b00011011]), 1, [0, 255, 170, 255]),
            (2, bytes([0b00011011]), 0, [255, 85, 170, 255]),
            (4, bytes([0x05, 0xAF]), 5, [0, 255, 170, 255]),
            (8, bytes([0, 85, 170, 255]), 85, [0, 255, 170, 255]),
            (16, bytes([0, 0, 85, 85, 85, 86, 255, 255]), 0x5555, [0, 255, 85, 255]),
        ],
    )
    def test_are_white_paper_at_their_own_depth(
        self, depth: int, samples: bytes, transparent: int, wanted: list[int]
    ) -> None:
        found = pixels(png(depth, 0, samples, transparent), (1, 4), "stretch", color=False)
        assert found.ravel().tolist() == wanted

    def test_of_colours(self) -> None:
        eight = png(8, 2, bytes(v for v in (0, 85, 170, 255) for _ in range(3)), 85)
        assert pixels(eight, (1, 4), "stretch")[0, :, 1].tolist() == [0, 255, 170, 255]
        with pytest.raises(ImageError, match="must have 8 bits, or an alpha channel, where a colour is transparent"):
            pixels(png(16, 2, bytes(24), 0x55))


class TestHostileFolders:
    @given(
        st.sampled_from(FILES),
        st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6), st.integers(0, 6)), max_size=5),
        st.booleans(),
    )
    @settings(max_examples=many(100))
    def test_any_damage_is_an_image_or_a_reason(
        self, data: bytes, changes: list[tuple[int, bytes, int]], mend: bool
    ) -> None:
        for place, new, removed in changes:
            place %= len(data)
            data = data[:place] + new + data[place + removed :]
        if mend and data.startswith(b"\x89PNG"):
            data = with_checksums(data)
        with warnings.catch_warnings():
            # Pillow warns of odd Exif data, and goes on.
            warnings.simplefilter("ignore")
            with suppress(ImageError):
                image = ImageForm(6, 5, "crop", True).decode(data)
                assert (image.shape, image.dtype) == ((6, 5, 3), np.uint8)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("huge.png", huge_png(), r"must have from 1 to 67108864 pixels, got 50000×50000"),
            ("large.jpg", huge_jpeg(9_000), "must have at most 67108864 pixels, got 9000×9000"),
            ("huge.jpg", huge_jpeg(10_000), "must have at most 67108864 pixels, got"),
            ("huger.jpg", huge_jpeg(60_000), "must have at most 67108864 pixels, got"),
            ("text.jpg", b"Dear reader,\n", "must be a JPEG or PNG image"),
            ("gif.png", encoded(Image.new("L", (3, 3)), "gif"), "must be a JPEG or PNG image"),
            ("nothing.png", b"", "must be a JPEG or PNG image"),
            ("cut.jpg", encoded(Image.effect_noise((60, 60), 50), "jpeg")[:-400], "must be decodable"),
            ("cut.png", encoded(Image.effect_noise((60, 60), 50))[:-400], "must be whole, got the beginning alone"),
            ("signature.jpg", b"\xff\xd8\xff\xe0", "must be decodable"),
            ("two\nlines.png", encoded(photo(1)), "must have a name of printable characters"),
        ],
        ids=lambda value: value.replace("\n", " ") if isinstance(value, str) and "." in value else None,
    )
    def test_files_that_are_no_image_are_named(self, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "kind 1" / name).write_bytes(content)
        wanted = rf"{name!r}"[1:-1].replace("\\", "\\\\")
        with pytest.raises(
            ArgumentException,
            match=rf"^folder must hold whole images alone, got 1 other .* in '.*photos': 'kind 1/{wanted}' {reason}",
        ) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        with pytest.warns(UserWarning, match="^1 entries of '.*photos' are left out: 'kind 1/"):
            loader = load(folder, unreadable="skip")
        assert list(loader.left_out) == [f"kind 1/{name}"]
        # Four other images are there for every class.
        assert load_quietly(folder, 4, 1, 4).GetNextTask().QueryInput.shape == (16, 8, 8, 3)

    def test_links_out_of_the_folder_are_not_followed(self, tmp_path: Path) -> None:
        folder, outside = fill(tmp_path / "photos"), tmp_path / "secret.png"
        outside.write_bytes(encoded(photo(9)))
        (folder / "kind 1" / "link.png").symlink_to(outside)
        (folder / "all").symlink_to(tmp_path)
        (folder / "loop").symlink_to(folder)
        with pytest.raises(ArgumentException, match="'all' must be a file or a folder, got a symbolic link"):
            load(folder)
        assert set(load_quietly(folder).left_out) == {"kind 1/link.png", "all", "loop"}
        os.mkfifo(folder / "kind 2" / "pipe.png")
        with pytest.raises(ArgumentException, match=r"pipe\.png' must be a file or a folder, got something else"):
            load(folder)

    def test_empty_and_deep_classes_and_names_that_cannot_be_printed(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "empty").mkdir()
        fill(folder / "kind 0", 1, 1, "more")
        (folder / "loose.png").write_bytes(encoded(photo(1)))
        (folder / "read me.txt").write_text("Photographs.")
        (folder / ".hidden").mkdir()
        (folder / "kind 1" / ".DS_Store").write_bytes(b"")
        (folder / "bad\nname").mkdir()
        (folder / "bad\nname" / "0.png").write_bytes(encoded(photo(1)))
        (folder / "words").mkdir()
        for name in "abc":
            (folder / "words" / f"{name}.png").write_text(name)
        loader = load_quietly(folder)
        assert loader.left_out == {
            "empty": "must hold images, got none",
            "kind 0/more/kind 0/0.png": "must lie in the folder of its class itself, got a folder in it",
            "loose.png": "must lie in the folder of its class",
            "bad\nname": "must have a name of printable characters",
            **{f"words/{name}.png": "must be a JPEG or PNG image" for name in "abc"},
            "words": "must hold images, got none that can be read",
        }
        assert loader.AvailableClasses == 4

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_what_cannot_be_read_or_is_gone_by_then_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        folder, scan, look = fill(tmp_path / "photos", 5), os.scandir, os.lstat
        place = str(folder / "kind 4" / "0.png") if what == "file" else str(folder / "kind 4")

        def refuse(call: Any) -> Any:
            def seen(path: Any, *rest: Any) -> Any:
                if str(path).rstrip("/") == place:
                    raise PermissionError(13, "Permission denied", str(path))
                return call(path, *rest)

            return seen

        if what == "file":
            read = os.open
            monkeypatch.setattr(os, "open", refuse(read))
            monkeypatch.setattr(os, "lstat", refuse(look))
        else:
            monkeypatch.setattr(os, "scandir", refuse(scan))
        name = place.removeprefix(f"{folder}/")
        assert load_quietly(folder, 3, 1, 2).left_out == {name: "must be readable"}
        with pytest.raises(
            ArgumentException, match=rf"^folder must hold whole images.*'{name}' must be readable; remove"
        ):
            load(folder)

    def test_why_there_is_no_image_is_told(self, tmp_path: Path) -> None:
        fill(tmp_path / "photos", inside="deep")
        message = (
            r"^folder must have a folder with images for each class, got none in .*/photos': 'deep' must hold images, "
        )
        for how in ("refuse", "skip"):
            with pytest.raises(
                ArgumentException, match=message + r"got none; 'deep/kind 0/0.png' must lie .* and 16 more"
            ):
                load(tmp_path / "photos", unreadable=how)

    def test_errors_name_a_few_of_many(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        for i in range(8):
            (folder / "kind 0" / f"{i}.txt").write_text("no image")
        with pytest.raises(ArgumentException, match=r"got 8 other entries .*'kind 0/4.txt' .*; and 3 more; remove"):
            load(folder)

    def test_a_class_with_too_few_images_is_named(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "kind 2" / "0.png").write_text("no image")
        with pytest.raises(ArgumentException, match=r"KShot \+ QueryShots .* are 'kind 2' \(4\)"):
            load_quietly(folder, 2, 1, 4)
        with pytest.raises(ArgumentException, match=r"^KShot \+ QueryShots must be at most"):
            load(folder, 2, 1, 9)

    def test_a_single_class_is_named(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        for other in (1, 2, 3):
            shutil.rmtree(folder / f"kind {other}")
        with pytest.raises(ArgumentException, match=r"; tasks need at least 2 classes, the data have 'kind 0'$"):
            load(folder)

    @pytest.mark.slow
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
    def test_a_huge_image_takes_no_memory(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "kind 1" / "huge.png").write_bytes(huge_png())
        assert peak_growth(folder, 'unreadable="skip"') < 40


class TestLayouts:
    def test_mini_imagenet_as_folders(self, tmp_path: Path) -> None:
        folder = tmp_path / "mini"
        fill(folder, 4, 4, "train")
        fill(folder, 3, 4, "val")
        fill(folder, 2, 4, "test")
        counts = [load(folder, 2, 1, 2, split=split).AvailableClasses for split in ("train", "val", "test")]
        assert counts == [4, 3, 2]
        with pytest.raises(ArgumentException, match=r"^split must be 'train', 'val' or 'test' for '.*mini', which is"):
            load(folder)

    def test_mini_imagenet_as_tables(self, tmp_path: Path) -> None:
        folder = tmp_path / "mini"
        (folder / "images").mkdir(parents=True)
        for split, classes in {"train": (0, 1, 2), "test": (3, 4)}.items():
            rows = ["filename,label"]
            for c in classes:
                for i in range(4):
                    name = f"n0{c}_{i}.jpg"
                    (folder / "images" / name).write_bytes(encoded(photo(c, i), "jpeg"))
                    rows.append(f"{name},n0{c}")
            (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
        train, test = (load(folder, 2, 1, 2, split=split) for split in ("train", "test"))
        assert (train.labels, test.labels) == (("n00", "n01", "n02"), ("n03", "n04"))
        with pytest.raises(ArgumentException, match=r"split must be None for .*, got 'val'; it has no val.csv"):
            load(folder, split="val")
        (folder / "test.csv").write_text(
            "filename,label\n../secret.png,n1\n" + "\n".join((folder / "test.csv").read_text().splitlines()[1:])
        )
        with pytest.raises(ArgumentException, match=r"'../secret.png' must be a file in images, as test.csv has it"):
            load(folder, 2, 1, 2, split="test")
        for text, message in {
            "file,label\n": "test.csv must have the columns filename and label, got file, label",
            "": "test.csv must have the columns filename and label, got ",
            "filename,label\nn03_0.jpg,n03\nn03_0.jpg,n04\n": "test.csv must name each file once, with a label, got",
            "filename,label\nn03_0.jpg\n": "test.csv must name each file once, with a label, got 'n03_0.jpg', ''",
            "filename,label\nn03_0.jpg,n03\nimages/n03_0.jpg,n04\n": "test.csv must name each file once, with a label",
            f'filename,label\n"n03_0.jpg,n03\n{"x" * 2**17}': "test.csv must be a table with commas, got another: ",
        }.items():
            (folder / "test.csv").write_text(text)
            with pytest.raises(ArgumentException, match=f"^{message}"):
                load(folder, split="test")
        rows = [f"n0{c}_{i}.jpg,{' ' * (i % 2)}n0{c} " for c in (3, 4) for i in range(4)]
        (folder / "test.csv").write_text("filename,label\n" + "\n".join(rows))
        assert load(folder, 2, 1, 2, split="test").labels == ("n03", "n04")
        (folder / "test.csv").write_bytes("\r".join(["filename,label", *rows]).encode())
        assert load(folder, 2, 1, 2, split="test").labels == ("n03", "n04")
        (folder / "test.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ArgumentException, match=r"test.csv' must be a text in UTF-8"):
            load(folder, split="test")

    def test_cifar_fs(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "cifar100", 5, 4, "data")
        lists = folder / "splits" / "bertinetto"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("kind 0\nkind 3\nkind 4\n")
        (lists / "val.txt").write_text("kind 1\nkind 2")
        assert load(folder, 2, 1, 2, split="train").labels == ("kind 0", "kind 3", "kind 4")
        assert load(folder, 2, 1, 2, split="val").labels == ("kind 1", "kind 2")
        (lists / "val.txt").write_text("kind 1\nkind 2\n../../photos\n")
        with pytest.raises(
            ArgumentException, match=r"'data/\.\./\.\./photos' must be a folder with images, as splits/"
        ):
            load(folder, 2, 1, 2, split="val")
        (lists / "val.txt").write_text("\n")
        with pytest.raises(ArgumentException, match=r"val.txt must name classes, got none"):
            load(folder, 2, 1, 2, split="val")
        (folder / "splits" / "train.txt").write_text("kind 0\n")
        with pytest.raises(ArgumentException, match=r"must have one list of train classes, got splits/bertinetto/"):
            load(folder, 2, 1, 2, split="train")


class TestCache:
    def refuse_to_decode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def decode(self: ImageForm, data: bytes) -> np.ndarray:
            raise AssertionError("decoded")

        monkeypatch.setattr(ImageForm, "decode", decode)

    def test_images_are_decoded_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = fill(tmp_path / "photos")
        (folder / "kind 0" / "broken.png").write_text("no image")
        wanted = bits(load_quietly(folder).GetTaskBatch(3))
        self.refuse_to_decode(monkeypatch)
        again = load_quietly(folder)
        assert bits(again.GetTaskBatch(3)) == wanted
        assert list(again.left_out) == ["kind 0/broken.png"]
        with pytest.raises(AssertionError, match="decoded"):
            load(folder, size=9, unreadable="skip")

    def test_what_changes_is_decoded_anew(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos", classes=2)
        before = bits(load(folder, 2, 1, 2).GetTaskBatch(2))
        for path in folder.rglob("*.png"):
            path.write_bytes(encoded(photo(20)))
        assert bits(load(folder, 2, 1, 2).GetTaskBatch(2)) != before

    def test_a_file_that_could_not_be_read_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, read = fill(tmp_path / "photos"), os.open

        def open_others(path: Any, *rest: Any) -> int:
            if str(path).endswith("3.jpeg"):
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_others)
            wanted = {f"kind {c}/3.jpeg": "must be readable" for c in range(4)}
            assert load_quietly(folder).left_out == wanted
            # As long as they cannot be read, the others are not decoded again.
            self.refuse_to_decode(patch)
            assert load_quietly(folder).left_out == wanted
        assert load(folder, 2, 1, 4).left_out == {}

    @pytest.mark.parametrize("harm", ["cut", "empty", "no array", "other", "index", "no index", "odd index"])
    def test_a_damaged_cache_is_made_anew(self, tmp_path: Path, harm: str) -> None:
        folder = fill(tmp_path / "photos")
        wanted = bits(load(folder).GetTaskBatch(2))
        (pixels,), (index,) = (list((tmp_path / "cache").glob(f"*.{end}")) for end in ("npy", "json"))
        if harm == "other":
            np.save(pixels, np.zeros((20, 8, 8, 3), np.uint16))
        elif harm == "no index":
            index.unlink()
        elif harm == "odd index":
            index.write_text("[1, 2]")
        else:
            path = index if harm == "index" else pixels
            data = path.read_bytes()
            path.write_bytes({"cut": data[:-1], "empty": b"", "no array": b"text", "index": b"{"}[harm])
        assert bits(load(folder).GetTaskBatch(2)) == wanted

    def test_an_interrupt_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder, decoded = fill(tmp_path / "photos"), []

        def decode(self: ImageForm, data: bytes) -> np.ndarray:
            decoded.append(data)
            if len(decoded) == 9:
                raise KeyboardInterrupt
            return np.zeros(self.shape, np.uint8)

        with monkeypatch.context() as patch:
            patch.setattr(ImageForm, "decode", decode)
            with pytest.raises(KeyboardInterrupt):
                load(folder)
        assert list((tmp_path / "cache").iterdir()) == []
        assert load(folder).GetNextTask().SupportInput.max() > 0

    def test_a_pickle_holds_no_pixels(self, tmp_path: Path) -> None:
        loader = load(fill(tmp_path / "photos"), size=64)
        data = pickle.dumps(loader)
        assert len(data) < 20_000
        for path in (tmp_path / "cache").glob("*.npy"):
            path.unlink()
        with pytest.raises(InvalidOperationException, match=r"must hold uint8 images of .*; make the loader anew"):
            pickle.loads(data)

    def test_a_cache_that_cannot_be_written_keeps_its_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ArgumentException, match=r"^cache must be a folder, got"):
            load(fill(tmp_path / "photos"), cache=tmp_path / "file")
        with pytest.raises(OSError, match="file"):
            load(tmp_path / "photos", cache=tmp_path / "file" / "cache")
        for inside in (tmp_path / "photos", tmp_path / "photos" / "cache"):
            with pytest.raises(ArgumentException, match=r"^cache must be outside folder, where it would be taken"):
                load(tmp_path / "photos", cache=inside)

    def test_the_users_cache_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        load(fill(tmp_path / "photos"), cache=None)
        if sys.platform == "linux":
            assert len(list((tmp_path / "user" / "aidotnet_py" / "images").iterdir())) == 2
        monkeypatch.setitem(sys.modules, "platformdirs", None)
        with pytest.raises(ImportError, match=r'platformdirs: pip install "aidotnet-py\[data\]", or pass cache=FOLDER'):
            load(tmp_path / "photos", cache=None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"folder": None}, ArgumentNullException, "folder must be a path, got None"),
        ({"folder": 3}, ArgumentException, "folder must be a path, got 3"),
        ({"folder": ""}, ArgumentException, "folder must be a path, got ''"),
        ({"folder": "nowhere"}, FileNotFoundError, ".*folder must be an existing folder, got nothing"),
        ({"folder": __file__}, ArgumentException, "folder must be a folder, got"),
        ({"NWay": 1}, ArgumentOutOfRangeException, "NWay must be a whole number of at least 2, got 1"),
        ({"NWay": 5}, ArgumentOutOfRangeException, "NWay must be at most 4, the number of classes, got 5"),
        ({"split": "all"}, ArgumentException, "split must be 'train', 'val', 'test' or None, got 'all'"),
        ({"size": 0}, ArgumentOutOfRangeException, "size must be a whole number from 1 to 4096, got 0"),
        ({"size": (8, 5000)}, ArgumentOutOfRangeException, "size must be a whole number from 1 to 4096, got 5000"),
        ({"size": (8, 8, 3)}, ArgumentException, "size must be one whole number, or height and width, got"),
        (
            {"size": (8, 9), "rotations": True},
            ArgumentException,
            "size must be square where rotations is True",
        ),
        ({"fit": "cover"}, ArgumentException, "fit must be 'crop', 'stretch' or 'pad', got 'cover'"),
        ({"color": "L"}, ArgumentException, "color must be True or False, got 'L'"),
        ({"unreadable": "ignore"}, ArgumentException, "unreadable must be 'refuse' or 'skip', got 'ignore'"),
        ({"weighting": None}, ArgumentException, "weighting must be 'uniform', 'balanced' or 'proportional', got None"),
        ({"cache": 3}, ArgumentException, "cache must be a path, got 3"),
        ({"cache": ""}, ArgumentException, "cache must be a path, got ''"),
        ({"dtype": int}, ArgumentException, "dtype must be a NumPy floating type"),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fill(tmp_path / "photos")
    with pytest.raises(error, match=message):
        ImageFolderLoader(**({"folder": folder, "KShot": 1, "QueryShots": 2, "NWay": 3, "cache": tmp_path} | arguments))


def test_a_folder_without_classes(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ArgumentException, match=r"^folder must have a folder with images for each class, got none in"):
        load(tmp_path / "photos")


def test_a_missing_pillow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "photos")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'Pillow: pip install "aidotnet-py\[data\]"'):
        load(folder)


class TestEncoding:
    def test_images_that_come_later_are_encoded_as_the_loaders_are(self, tmp_path: Path) -> None:
        folder = fill(tmp_path / "photos")
        loader = load(folder, 4, 2, 3, dtype=np.float64, fit="pad", size=(8, 6))
        again = ImageEncoding.from_settings(json.loads(json.dumps(loader.encoding.settings())))
        assert again == loader.encoding
        assert again.input_shape == (8, 6, 3)
        paths = sorted(folder.glob("*/*"))
        known = {row.tobytes() for row in again.inputs(paths)}
        task = loader.GetNextTask()
        assert {row.tobytes() for row in np.concatenate([task.SupportInput, task.QueryInput])} == known
        assert again.inputs([str(paths[0])]).dtype == np.float64

    def test_a_task_of_new_classes(self, tmp_path: Path) -> None:
        support, query = fill(tmp_path / "support", 3, 2), fill(tmp_path / "query", 2, 4)
        encoding = load(fill(tmp_path / "photos")).encoding
        task = encoding.task(support, query)
        assert task.Metadata["Classes"] == ("kind 0", "kind 1", "kind 2")
        assert task.SupportOutput.tolist() == [0, 0, 1, 1, 2, 2]
        assert task.QueryOutput.tolist() == [0] * 4 + [1] * 4
        assert (task.NumWays, task.NumShots, task.QueryInput.shape) == (3, 2, (8, 8, 8, 3))
        assert encoding.task(support).QueryInput is None
        with pytest.raises(ArgumentException, match=r"^query must have classes of the support, 'kind 0, kind 1', got"):
            encoding.task(query, support)
        (query / "kind 0" / "0.png").write_text("no image")
        with pytest.raises(ArgumentException, match=r"query/kind 0/0.png' must be a JPEG or PNG image"):
            encoding.task(support, query)
        (support / "kind 0" / "link.png").symlink_to(query)
        with pytest.raises(ArgumentException, match=r"support/kind 0/link.png' must be a file or a folder, got"):
            encoding.task(support)
        (tmp_path / "none").mkdir()
        with pytest.raises(ArgumentException, match=r"none' must hold a folder with images for each class, got none"):
            encoding.task(tmp_path / "none")

    @pytest.mark.parametrize(
        ("images", "error", "message"),
        [
            ("photo.png", ArgumentException, "images must be a list of one or more paths of images, got 'photo.png'"),
            ([], ArgumentException, r"images must be a list of one or more paths of images, got \[\]"),
            ([3], ArgumentException, r"images\[0\] must be a path, got 3"),
            ([None], ArgumentNullException, r"images\[0\] must be a path, got None"),
            (["photo.png"], FileNotFoundError, "images must be existing files, got nothing"),
            (["."], ArgumentException, r"'.' must be readable"),
            ([__file__], ArgumentException, r"test_data_image_folders.py' must be a JPEG or PNG image"),
        ],
    )
    def test_images_that_are_none(
        self, images: Any, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        encoding = ImageEncoding(ImageForm(8, 8, "crop", True), np.dtype(np.float32))
        with pytest.raises(error, match=message):
            encoding.inputs(images)

    @pytest.mark.parametrize(
        "change",
        [
            {"height": 0},
            {"fit": "cover"},
            {"color": 1},
            {"dtype": "int8"},
            {"dtype": "none"},
            {"dtype": ",,"},
            {"width": None},
        ],
    )
    def test_settings_that_are_none(self, change: dict[str, Any]) -> None:
        settings = ImageEncoding(ImageForm(8, 8, "crop", True), np.dtype(np.float32)).settings()
        with pytest.raises(ArgumentException):
            ImageEncoding.from_settings(settings | change)
        with pytest.raises(ArgumentException):
            ImageEncoding.from_settings({})


def load_quietly(folder: Path, *sizes: int, **options: Any) -> ImageFolderLoader[Any]:
    with pytest.warns(UserWarning, match="are left out"):
        return load(folder, *sizes, unreadable="skip", **options)


MEASURE = """
import sys, warnings
from pathlib import Path
from PIL import Image, ImageOps
import numpy as np
import aidotnet_py.data.image_folder.decoding, tqdm
from aidotnet_py.data import ImageEncoding, ImageFolderLoader

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

warnings.simplefilter("ignore")
import resource
before, started = status("VmRSS"), status("VmData")
# Private memory may grow by this much at any time.
resource.setrlimit(resource.RLIMIT_DATA, (int((started + {allowed}) * 2**20),) * 2)
loader = ImageFolderLoader(sys.argv[1], 5, 1, 2, size=32, cache=sys.argv[2], seed=0{more})
for _ in range(50):
    loader.GetTaskBatch(4)
print(loader.AvailableClasses, status("VmRSS") - before)
"""


def peak_growth(folder: Path, more: str = "", allowed: int = 200, ways: int = 4) -> float:
    """Load in a process that is not allowed more private memory, in MiB; return what it has taken at the end."""
    code = MEASURE.format(allowed=allowed, more=f", {more}" if more else "").replace("1], 5,", f"1], {ways},")
    command = [sys.executable, "-c", code, str(folder), str(folder.parent / "measured")]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return float(result.stdout.split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_hundred_thousand_images_take_no_more_memory_than_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for c in range(100):
        own = folder / f"kind {c}"
        own.mkdir(parents=True)
        (own / "0.png").write_bytes(encoded(Image.new("RGB", (12, 12), (c, c, c))))
        for i in range(1, 1000):
            os.link(own / "0.png", own / f"{i}.png")
    # Their pixels take 293 MiB on disk; decoded one by one in Python they would take as much in memory.
    assert peak_growth(folder, allowed=150, ways=5) < 100
