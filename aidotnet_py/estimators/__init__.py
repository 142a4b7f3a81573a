"""scikit-learn estimators: learners that adapt in `fit`, and one that meta-trains on a table's groups."""

from aidotnet_py.estimators.few_shot import FewShotClassifier, FewShotRegressor
from aidotnet_py.estimators.meta_trained import MetaTrainedRegressor

__all__ = ["FewShotClassifier", "FewShotRegressor", "MetaTrainedRegressor"]
