"""
Unseen digits from one example each
===================================

Five-way one-shot tasks of scikit-learn's scanned digits. Training tasks have 0, 1, 6, 8, 9 and their rotations; test
tasks have the other digits. ``make demo`` runs a longer script, ``examples/digits.py``, with a wider network and
comparisons.
"""

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import DigitsLoader
from aidotnet_py.nn import conv4
from aidotnet_py.plotting import draw_classification_task


def learner_of(model, split, seed):
    options = iMAMLOptions.FromPaper(
        model,
        Lambda=0.5,
        DataLoader=DigitsLoader(NWay=5, KShot=1, split=split, seed=seed),
        AdaptationSteps=16,
        InnerLearningRate=0.1,
        ConjugateGradientIterations=5,
        Curvature="gauss-newton",
    )
    return iMAMLAlgorithm(options)


model = NeuralNetworkModel(conv4(5, filters=16), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)


def accuracy_on_unseen_digits():
    interval = learner_of(model, "test", seed=1).Evaluate(100).AccuracyStats.ConfidenceInterval()
    return f"{interval.Mean:.1%} ± {interval.HalfWidth:.1%}"


# %%
# The accuracy on 100 tasks of unseen digits, before and after meta-training. Chance is 20 %.

print("random start, after adaptation:", accuracy_on_unseen_digits())
learner = learner_of(model, "train", seed=0)
for _ in range(150):
    learner.MetaTrainStep(8)
print("iMAML, after adaptation:       ", accuracy_on_unseen_digits())

# %%
# One task: the adapted model saw only the support set, on the left, of these classes.

task = DigitsLoader(NWay=5, KShot=1, split="test", seed=2).GetNextTask()
before, after = model.Predict(task.QueryInput), learner.Adapt(task).Predict(task.QueryInput)
figure = draw_classification_task(task, before, after, learner.AdaptAndEvaluate(task).PerStepLosses)
