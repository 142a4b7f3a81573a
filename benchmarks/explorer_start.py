"""Meta-train the start that the explorer's page of digits adapts: `python -m benchmarks.explorer_start`.

About a minute on two cores. Writes the file that the package holds, and prints what the start is worth on unseen
digits.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm
from aidotnet_py.data import DigitsLoader
from aidotnet_py.explorer.digits import START, start_options
from aidotnet_py.nn import conv4

STEPS, TASKS, TEST_TASKS = 300, 8, 300


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    # Layer norm: a person asks about one image at a time, which batch norm would normalise with others.
    model = NeuralNetworkModel(
        conv4(5, filters=32, norm="layer"), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0
    )
    learner = iMAMLAlgorithm(start_options(model, DataLoader=DigitsLoader(seed=0)))
    for _ in tqdm(range(STEPS), desc="meta-training", mininterval=1, disable=None):
        learner.MetaTrainStep(TASKS)
    model.SaveModel(str(START))
    for ways, shots in ((5, 1), (5, 5), (3, 1), (2, 1)):
        loader = DigitsLoader(NWay=ways, KShot=shots, split="test", rotations=False, seed=1)
        right = []
        for _ in range(TEST_TASKS):
            task = loader.GetNextTask()
            logits = learner.Adapt(task).Predict(task.QueryInput)[:, :ways]
            right.append(float(np.mean(logits.argmax(axis=1) == task.QueryOutput)))
        half_width = 1.96 * float(np.std(right, ddof=1)) / len(right) ** 0.5
        print(f"{ways}-way {shots}-shot: {np.mean(right):.1%} ± {half_width:.1%} of unseen upright digits")


if __name__ == "__main__":
    main()
