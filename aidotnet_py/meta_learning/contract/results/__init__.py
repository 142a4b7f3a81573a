"""Results of training, evaluation and adaptation: losses, accuracies, times and their summaries.

Numbers called T are NumPy scalars of the model's type. Accuracy is the fraction of examples whose largest output is
the right class, from 0 to 1; for regression it is NaN, and every summary of it is NaN in turn.
"""

from aidotnet_py.meta_learning.contract.results.adaptation import MetaAdaptationResult
from aidotnet_py.meta_learning.contract.results.evaluation import MetaEvaluationResult
from aidotnet_py.meta_learning.contract.results.step import MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.results.training import MetaTrainingResult

__all__ = [
    "MetaAdaptationResult",
    "MetaEvaluationResult",
    "MetaTrainingResult",
    "MetaTrainingStepResult",
]
