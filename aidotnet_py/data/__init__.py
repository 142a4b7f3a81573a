"""Data sets as episodic loaders, loaders over arrays, meta-datasets and task samplers.

scikit-learn, Pillow, pooch, narwhals and Polars are imported on first use.
"""

from aidotnet_py.data.array_loaders import (
    ArrayLoader,
    BalancedEpisodicDataLoader,
    CurriculumEpisodicDataLoader,
    StratifiedEpisodicDataLoader,
    UniformEpisodicDataLoader,
)
from aidotnet_py.data.augmentations import GaussianNoise, RandomFlip, RandomShift
from aidotnet_py.data.dataset_loader import DatasetLoader
from aidotnet_py.data.digits import DigitsLoader
from aidotnet_py.data.episodes import Episode, EpisodeCache
from aidotnet_py.data.image_folder.encoding import ImageEncoding
from aidotnet_py.data.image_folder.loader import ImageFolderLoader
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
from aidotnet_py.data.table.encoding import TableEncoding
from aidotnet_py.data.table.loader import TableLoader

__all__ = [
    "ArrayLoader",
    "BalancedEpisodicDataLoader",
    "BalancedTaskSampler",
    "CurriculumEpisodicDataLoader",
    "CurriculumTaskSampler",
    "DatasetLoader",
    "DigitsLoader",
    "DynamicTaskSampler",
    "Episode",
    "EpisodeCache",
    "GaussianClassificationMetaDataset",
    "GaussianNoise",
    "ImageEncoding",
    "ImageFolderLoader",
    "MetaDatasetBase",
    "OmniglotLoader",
    "RandomFlip",
    "RandomShift",
    "RotatedDigitsMetaDataset",
    "SineWaveMetaDataset",
    "SinusoidLoader",
    "StratifiedEpisodicDataLoader",
    "TableEncoding",
    "TableLoader",
    "UniformEpisodicDataLoader",
    "UniformTaskSampler",
]
