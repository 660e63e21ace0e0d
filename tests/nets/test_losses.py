import numpy as np
import pytest
import torch

from tomoseg.nets.losses import beside_another, log_squares_loss, segmentation_loss


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


def test_where_only_some_classes_were_looked_for_a_zero_allows_the_others():
    logits = torch.tensor([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]])[:, :, None, None, None]
    labels = torch.tensor([0, 2])[:, None, None, None]
    allowed = torch.tensor([[True, True, False]] * 2)
    scores = logits[0].flatten().double().softmax(0)
    entropy = -(torch.log(scores[0] + scores[1]) + torch.log(scores[2])) / 2
    # Class 1 was looked for nowhere; of class 2 one voxel is true and found to its score.
    dice = (2 * scores[2] + 1) / (2 * scores[2] + 1 + 1)
    found = segmentation_loss(logits, labels, torch.ones(3), allowed=allowed)
    assert float(found) == pytest.approx(float(entropy + 1 - dice), rel=1e-5)


def test_voxels_beside_another_label_are_marked_but_not_those_beside_nothing():
    labels = torch.tensor([0, 0, 1, 1, 1, 255, 0, 2])[None, None, None]
    assert beside_another(labels).flatten().tolist() == [0, 1, 1, 0, 0, 0, 1, 1]


def test_weighted_boundaries_count_more():
    logits, labels = example()
    plain, weighted = (
        segmentation_loss(logits, labels, torch.ones(4), boundary_weight=w) for w in (0.0, 4.0)
    )
    assert plain != weighted
    flat = torch.zeros_like(labels)
    plain, weighted = (
        segmentation_loss(logits, flat, torch.ones(4), boundary_weight=w) for w in (0.0, 4.0)
    )
    assert plain == weighted


def test_log_squares_is_its_formula():
    response = torch.tensor([0.25, 1.5, 0.5, -0.5])
    logits = torch.stack([torch.zeros(4), (response - 0.5) * 8])[None, :, None, None]
    labels = torch.tensor([0, 1, 255, 0])[None, None, None]
    allowed = torch.tensor([[True, False]])
    expected = np.log((0.25**2 + 0 + 0.5**2) / 3 + 1e-6)
    assert float(log_squares_loss(logits, labels, allowed=allowed)) == pytest.approx(expected)
