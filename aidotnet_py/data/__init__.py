"""Data sets as episodic loaders: sinusoids, scanned digits and Omniglot.

scikit-learn, Pillow and pooch are imported on first use.
"""

from aidotnet_py.data.digits import DigitsLoader
from aidotnet_py.data.omniglot.loader import OmniglotLoader
from aidotnet_py.data.sinusoid import SinusoidLoader

__all__ = ["DigitsLoader", "OmniglotLoader", "SinusoidLoader"]
