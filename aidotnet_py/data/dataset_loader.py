"""Few-shot tasks on a map-style data set of examples and labels, such as PyTorch's, which is read once."""

from __future__ import annotations

from typing import Any, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SWITCH, check_given, refusal, shown
from aidotnet_py.backends import Backend, to_host
from aidotnet_py.data.array_loaders import WeightedLoader
from aidotnet_py.data.draws import WAYS
from aidotnet_py.data.weightings import WEIGHTING, WeightingName
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.type_parameters import T

__all__ = ["DatasetLoader", "LabelledDataset"]


class LabelledDataset(Protocol):
    """Examples by their places from 0: each a pair of an input and a label."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return input and label of an example."""
        ...


class DatasetLoader(WeightedLoader[T]):
    """N-way K-shot tasks on a data set of (input, label) pairs: a ``torch.utils.data.Dataset``, or any that is like it.

    All examples are read once, in the constructor, into one array in memory; random transforms of the data set are
    drawn then. Tasks are those of an `ArrayLoader` on the inputs and labels. PyTorch is not imported.

    Parameters
    ----------
    dataset : sequence of pairs
        Has ``len`` and an (input, label) at each place. Inputs are tensors, arrays or images, real and finite, all of
        one shape, on the CPU; of one floating type or all of whole numbers, unless ``dtype`` is given. Values are not
        scaled: an image of bytes has values from 0 to 255, as float32. Images of Pillow have one mode; those of a
        palette must be converted.
    NWay, KShot, QueryShots : int
        N of at least 2, K and Q.
    channels_first : bool
        Whether inputs are images (channels, height, width), as PyTorch's; tasks have (height, width, channels).
    weighting : {"uniform", "balanced", "proportional"}
        As for `ArrayLoader`.
    seed, dtype, backend
        As for `ArrayLoader`.

    Raises
    ------
    ArgumentNullException
        ``dataset`` is None.
    ArgumentOutOfRangeException
        As for `ArrayLoader`.
    ArgumentException
        ``dataset`` has no length or no places, is empty, or has other things than pairs of such an input and one label;
        or as for `ArrayLoader`, with the inputs for X and the labels for y.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import DatasetLoader
    >>> rng = np.random.default_rng(0)
    >>> photos = [(rng.random((3, 8, 8), np.float32), name) for name in ["cat", "dog", "owl"] for _ in range(10)]
    >>> task = DatasetLoader(photos, NWay=2, KShot=1, QueryShots=3, channels_first=True, seed=0).GetNextTask()
    >>> task.SupportInput.shape, task.Metadata["Classes"]
    ((2, 8, 8, 3), ('dog', 'owl'))
    """

    @overload
    def __init__(
        self: DatasetLoader[np.float32],
        dataset: LabelledDataset,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        channels_first: bool = False,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        dataset: LabelledDataset,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        channels_first: bool = False,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        dataset: LabelledDataset,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        channels_first: bool = False,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        dtype: type[Any] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        WAYS.check("NWay", NWay)
        self._weighting = WEIGHTING.check("weighting", weighting)
        self._channels_first = SWITCH.check("channels_first", channels_first)
        super().__init__(
            NWay, KShot, QueryShots, seed=seed, dtype=np.float32 if dtype is None else dtype, backend=backend
        )
        inputs, labels = _read(dataset, self._channels_first, dtype)
        sizes = {"NWay": self._ways, "KShot": self._shots, "QueryShots": self._queries}
        self._fill(inputs, labels, dtype, sizes, seed)


def _read(dataset: LabelledDataset, channels_first: bool, dtype: type[Any] | None) -> tuple[NDArray[Any], list[Any]]:
    """Return the inputs in one array of a floating type, and the labels."""
    check_given("dataset", dataset, "a data set of pairs")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        own = "; pass its data set: dataset.dataset" if hasattr(dataset, "dataset") else ""
        raise ArgumentException(refusal("dataset", "a data set with len and an example at each place", dataset) + own)
    if len(dataset) == 0:
        raise ArgumentException("dataset must have at least one example, got none")
    inputs: NDArray[Any] | None = None
    labels: list[Any] = []
    given: list[tuple[np.dtype[Any], str | None]] = []
    for i in range(len(dataset)):
        x, label, mode = _example(dataset, i)
        given = given or [(x.dtype, mode)]
        (first, first_mode), *_ = given
        if None not in (mode, first_mode) and mode != first_mode:
            raise ArgumentException(
                f"inputs of dataset must be images of one mode, got {first_mode!r} at 0 and {mode!r} at {i}; give the "
                'data set a transform that calls image.convert("RGB")'
            )
        if channels_first and x.ndim != 3:
            raise ArgumentException(
                f"channels_first must be False for inputs other than images (channels, height, width), got {x.shape}"
            )
        x = np.moveaxis(x, 0, -1) if channels_first else x
        kept = np.dtype(dtype or (x.dtype if x.dtype.kind == "f" else np.float32)).newbyteorder("=")
        if inputs is None:
            inputs = np.empty((len(dataset), *x.shape), kept)
        if x.shape != inputs.shape[1:]:
            raise ArgumentException(
                f"inputs of dataset must have one shape, got {inputs.shape[1:]} at 0 and {x.shape} at {i}; give the "
                "data set a transform that resizes"
            )
        # Bytes from 0 to 255 beside numbers from 0 to 1 are another mistake than two precisions.
        if dtype is None and (kept != inputs.dtype or (x.dtype.kind == "f") != (first.kind == "f")):
            raise ArgumentException(
                f"inputs of dataset must have one dtype, got {first} at 0 and {x.dtype} at {i}; pass dtype"
            )
        # Values too large for the dtype become inf, which is refused later.
        with np.errstate(over="ignore"):
            inputs[i] = x
        labels.append(label)
    assert inputs is not None
    return inputs, labels


def _example(dataset: LabelledDataset, index: int) -> tuple[NDArray[Any], Any, str | None]:
    """Return input and label of an example, after their checks, and the mode of an image of Pillow."""
    pair = dataset[index]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # pyright: ignore[reportUnknownArgumentType] -- of anything
        raise ArgumentException(f"dataset must have pairs of input and label, got {shown(pair)} at {index}")
    given, labelled = cast("tuple[Any, Any]", pair)
    mode = given.mode if isinstance(getattr(given, "mode", None), str) else None
    # NumPy reads them as the places of the colours in the palette.
    if mode in ("P", "PA"):
        raise ArgumentException(
            f"inputs of dataset must be arrays or images without a palette, got a PIL image of mode {mode!r} at "
            f'{index}; give the data set a transform that calls image.convert("RGB")'
        )
    x: NDArray[Any] = to_host(given, f"dataset[{index}][0]")
    if x.dtype.kind not in "fiub" or x.ndim == 0:
        raise ArgumentException(
            f"inputs of dataset must be arrays of real numbers, got {shown(given)} at {index}; give the data set a "
            "transform to tensors"
        )
    label = to_host(labelled, f"dataset[{index}][1]")
    if label.ndim:
        raise ArgumentException(
            f"labels of dataset must be single values, got {shown(labelled)} at {index}; give the data set a "
            "target_transform"
        )
    # item() of a time in nanoseconds is an integer.
    return x, label[()] if label.dtype.kind in "mM" else label.item(), mode
