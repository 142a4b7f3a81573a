"""The description of a model beside its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Self

from aidotnet_py.arguments import check_given
from aidotnet_py.type_parameters import T

__all__ = ["ModelMetadata"]


@dataclass
class ModelMetadata(Generic[T]):
    """A model's description.

    Attributes
    ----------
    Name, Version, Description : str
        Free text.
    TrainingDate : datetime or None
        The time of the last training; None before the first.
    Properties, AdditionalInfo : dict
        Any values, by name.
    FeatureCount : int
        Numbers in one input; 0 if unknown.
    Complexity : int
        Number of parameters.
    FeatureImportance : dict
        The importance of each feature to the model, by name; empty if unknown.

    Examples
    --------
    >>> metadata = ModelMetadata(Name="regressor")
    >>> metadata.SetProperty("units", "mV")
    >>> metadata.RemoveProperty("units"), metadata.RemoveProperty("units")
    (True, False)
    """

    Name: str = ""
    Version: str = "1.0"
    TrainingDate: datetime | None = None
    Properties: dict[str, Any] = field(default_factory=dict[str, Any])
    FeatureCount: int = 0
    Complexity: int = 0
    Description: str = ""
    AdditionalInfo: dict[str, Any] = field(default_factory=dict[str, Any])
    FeatureImportance: dict[str, T] = field(default_factory=dict[str, Any])

    def SetProperty(self, key: str, value: Any) -> None:
        """Set a property; a key of None is an ArgumentNullException."""
        check_given("key", key, "a string")
        self.Properties[key] = value

    def RemoveProperty(self, key: str) -> bool:
        """Delete a property, and return whether it existed; a key of None is an ArgumentNullException."""
        check_given("key", key, "a string")
        return self.Properties.pop(key, _MISSING) is not _MISSING

    def copy(self) -> Self:
        """Return a copy with its own dictionaries."""
        return replace(
            self,
            Properties=dict(self.Properties),
            AdditionalInfo=dict(self.AdditionalInfo),
            FeatureImportance=dict(self.FeatureImportance),
        )


_MISSING = object()
