"""What is known about a model beside its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Self

from aidotnet_py.type_parameters import T

__all__ = ["ModelMetadata"]


@dataclass
class ModelMetadata(Generic[T]):
    """A model's description.

    Attributes
    ----------
    Name, Version, Description : str
        What it is.
    TrainingDate : datetime or None
        When its parameters last changed by training; None before.
    Properties, AdditionalInfo : dict
        Anything worth keeping, by name.
    FeatureCount : int
        Numbers in one input; 0 where the model does not say.
    Complexity : int
        Number of parameters.
    FeatureImportance : dict
        How much each feature matters to the model, by name; empty where it does not say.

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
        """Keep a value under a name."""
        self.Properties[key] = value

    def RemoveProperty(self, key: str) -> bool:
        """Forget a name; whether it was there."""
        return self.Properties.pop(key, _MISSING) is not _MISSING

    def copy(self) -> Self:
        """The same, with dictionaries of its own."""
        return replace(
            self,
            Properties=dict(self.Properties),
            AdditionalInfo=dict(self.AdditionalInfo),
            FeatureImportance=dict(self.FeatureImportance),
        )


_MISSING = object()
