"""Times of NumPy as labels, for Python has none of finer units or other years, and times of Python as NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.exceptions import ArgumentException

__all__ = ["has_zones", "is_finer_than_python", "is_time", "times_of_numpy", "times_of_python"]


def is_finer_than_python(array: NDArray[Any]) -> bool:
    """Whether times or durations are in a finer unit than microseconds."""
    return np.datetime_data(array.dtype)[0] in ("ns", "ps", "fs", "as")


def times_of_python(where: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return times and durations in no finer unit than microseconds; other arrays as they are.

    Raises
    ------
    ArgumentException
        When one is between two microseconds, or a time is beyond the years 1 to 9999.
    """
    kind = array.dtype.kind
    if kind not in "mM":
        return array
    times = array.astype(f"{kind}8[us]") if is_finer_than_python(array) else array
    wrong = times != array
    if kind == "M":
        wrong |= np.array([isinstance(time, int) for time in times.ravel().tolist()], bool).reshape(array.shape)
    wrong &= ~np.isnat(array)
    if wrong.any():
        raise ArgumentException(
            f"{where} must have whole microseconds of the years 1 to 9999 as groups or classes, got {array[wrong][0]}; "
            "round the times, or convert them to numbers or strings"
        )
    return times


def is_time(kind: type) -> bool:
    """Whether values of a type are times or durations, of Python, pandas or NumPy."""
    return issubclass(kind, (date, np.datetime64, timedelta, np.timedelta64))


def has_zones(array: NDArray[Any]) -> bool:
    """Whether an array has times of Python or pandas with a time zone."""
    return array.dtype.kind == "O" and any(getattr(value, "tzinfo", None) is not None for value in array.tolist())


def times_of_numpy(where: str, values: Sequence[Any]) -> NDArray[Any] | ArgumentException:
    """Return times, in UTC if they have a zone, or durations; or the error for both, or for times that NumPy lacks.

    None is missing.

    Examples
    --------
    >>> import datetime
    >>> from aidotnet_py.data.times import times_of_numpy
    >>> times_of_numpy("when", [datetime.date(2024, 1, 2), None])
    array(['2024-01-02',        'NaT'], dtype='datetime64[D]')
    """
    moments = [_moment(value) for value in values if value is not None]
    if len({moment.dtype.kind for moment in moments}) > 1:
        return ArgumentException(f"{where} must hold times or durations, got both; drop or convert one of them")
    if len({getattr(value, "tzinfo", None) is None for value in values if value is not None}) > 1:
        return ArgumentException(f"{where} must hold times with a time zone or without one, got both; convert them")
    array = np.full(len(values), "NaT", np.array(moments).dtype)
    present = [place for place, value in enumerate(values) if value is not None]
    array[present] = moments
    if len({moment.dtype for moment in moments}) > 1:
        # In the finest of their units, others overflow, which NumPy does not say.
        days = f"{array.dtype.kind}8[D]"
        for read, moment in zip(array[present], moments, strict=True):
            if read.astype(days) != moment.astype(days):
                return ArgumentException(
                    f"{where} must hold times within the range of {array.dtype}, got {moment}; round the others, or "
                    "drop it"
                )
    return array


def _moment(value: Any) -> Any:
    # Times of pandas have nanoseconds, which those of Python lack.
    for name in ("to_datetime64", "to_timedelta64"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.array(value, "M8" if isinstance(value, (date, np.datetime64)) else "m8")[()]
