import numpy as np
import pytest
import torch

from tomoseg.nets.losses import segmentation_loss


def example(seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(2, 4, 3, 5, 6)
    labels = torch.randint(0, 3, (2, 3, 5, 6))  # class 3 does not occur
    labels[:, :, :2] = 255
    return logits, labels


def test_the_loss_is_its_formula_in_numpy():
    logits, labels = example()
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    scores = logits.double().softmax(dim=1).movedim(1, -1).numpy()
    truth = labels.numpy()
    entropy = norm = 0.0
    common, total = np.zeros(4), np.zeros(4)
    for place in np.ndindex(truth.shape):
        label = truth[place]
        if label != 255:
            entropy -= weights[label] * np.log(scores[place][label])
            norm += weights[label]
            common[label] += scores[place][label]
            total += scores[place]
            total[label] += 1
    dice = ((2 * common + 1) / (total + 1))[1:3]
    expected = entropy / norm + 1 - dice.mean()
    found = segmentation_loss(logits, labels, torch.tensor(weights, dtype=torch.float32))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_what_is_not_annotated_does_not_count():
    logits, labels = example()
    logits.requires_grad_()
    segmentation_loss(logits, labels, torch.ones(4)).backward()
    assert logits.grad is not None
    assert (logits.grad[:, :, :, :2] == 0).all()
    assert (logits.grad[:, :, :, 2:] != 0).any()


def test_a_perfect_prediction_costs_nothing_and_nothing_annotated_neither():
    _, labels = example()
    perfect = torch.nn.functional.one_hot(labels.where(labels != 255, 0), 4).movedim(-1, 1) * 50.0
    assert float(segmentation_loss(perfect, labels, torch.ones(4))) == pytest.approx(0, abs=1e-5)
    empty = torch.full_like(labels, 255)
    assert float(segmentation_loss(perfect, empty, torch.ones(4))) == 0.0
