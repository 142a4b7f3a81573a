"""Data sets as episodic loaders, loaders over arrays, meta-datasets and task samplers.

scikit-learn, Pillow and pooch are imported on first use.
"""

from aidotnet_py.data.array_loaders import (
    BalancedEpisodicDataLoader,
    CurriculumEpisodicDataLoader,
    StratifiedEpisodicDataLoader,
    UniformEpisodicDataLoader,
)
from aidotnet_py.data.digits import DigitsLoader
from aidotnet_py.data.episodes import Episode, EpisodeCache
from aidotnet_py.data.meta_dataset import MetaDatasetBase
from aidotnet_py.data.omniglot.loader import OmniglotLoader
from aidotnet_py.data.samplers import (
    BalancedTaskSampler,
    CurriculumTaskSampler,
    DynamicTaskSampler,
    UniformTaskSampler,
)
from aidotnet_py.data.sinusoid import SinusoidLoader
from aidotnet_py.data.synthetic_meta_datasets import (
    GaussianClassificationMetaDataset,
    RotatedDigitsMetaDataset,
    SineWaveMetaDataset,
)

__all__ = [
    "BalancedEpisodicDataLoader",
    "BalancedTaskSampler",
    "CurriculumEpisodicDataLoader",
    "CurriculumTaskSampler",
    "DigitsLoader",
    "DynamicTaskSampler",
    "Episode",
    "EpisodeCache",
    "GaussianClassificationMetaDataset",
    "MetaDatasetBase",
    "OmniglotLoader",
    "RotatedDigitsMetaDataset",
    "SineWaveMetaDataset",
    "SinusoidLoader",
    "StratifiedEpisodicDataLoader",
    "UniformEpisodicDataLoader",
    "UniformTaskSampler",
]
