"""The batched solver against scikit-learn's optimum: the same objective, the same predictions, on easy and on awkward rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from tunescope.outcome.logistic import Problem, solve

CS = (0.01, 1.0, 100.0)


def objective(fit, x, y):
    """C·Σ loss + ½‖W‖² as scikit-learn has it, with one weight vector for two classes."""
    z = x @ fit.coef_.T + fit.intercept_
    z = np.column_stack([np.zeros(len(z)), z]) if z.shape[1] == 1 else z
    loss = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]
    return fit.C * loss.sum() + 0.5 * (fit.coef_**2).sum()


def reference(x, y, C):
    return LogisticRegression(C=C, tol=1e-8, max_iter=20_000).fit(x, y)


def data(name):
    x, y = {"digits": load_digits, "iris": load_iris, "cancer": load_breast_cancer}[name](return_X_y=True)
    deviation = x.std(0)
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1), y


@pytest.mark.parametrize("name", ["iris", "digits", "cancer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_is_scikit_learns(name, dtype):
    """Cancer has two classes. Digits has columns that never vary."""
    x, y = data(name)
    rows = torch.from_numpy(x).to(dtype)
    for fit in solve([Problem(rows, torch.from_numpy(y), int(y.max()) + 1)], CS)[0]:
        theirs = reference(x, y, fit.C)
        assert fit.converged
        assert fit.objective == pytest.approx(objective(theirs, x, y), rel=1e-4)
        assert (fit.predict(rows).numpy() == theirs.predict(x)).mean() >= 0.998


@pytest.mark.parametrize("name", ["iris", "digits", "cancer"])
def test_the_objective_told_is_that_of_the_weights(name):
    """Logits are carried along in float32, and rounding must not add up in them: computed afresh, in float64."""
    x, y = data(name)
    copies = 18 if name == "digits" else 1  # enough rows that the problem stays in float32
    rows, labels = torch.from_numpy(np.tile(x, (copies, 1))).float(), np.tile(y, copies)
    for fit in solve([Problem(rows, torch.from_numpy(labels), int(y.max()) + 1)], CS)[0]:
        z = rows.double().numpy() @ fit.weights.double().numpy() + fit.intercept.double().numpy()
        loss = (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(labels)), labels]).sum()
        two = 2 if y.max() == 1 else 1  # one weight vector w is (-w/2, w/2) here
        assert fit.objective == pytest.approx(fit.C * loss + 0.5 * two * float((fit.weights.double() ** 2).sum()), rel=3e-5)


def test_problems_of_different_length_are_solved_together_as_alone():
    x, y = data("digits")
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    problems = [Problem(x[:size], y[:size], 10) for size in (300, 500, 1797)]
    for problem, together in zip(problems, solve(problems, (0.1,)), strict=True):
        alone = solve([problem], (0.1,))[0][0]
        assert together[0].objective == pytest.approx(alone.objective, rel=1e-5)


def test_cs_come_back_in_the_order_asked_for():
    x, y = data("iris")
    fits = solve([Problem(torch.from_numpy(x), torch.from_numpy(y), 3)], (10.0, 0.1, 1.0))[0]
    assert [fit.C for fit in fits] == [10.0, 0.1, 1.0]


def test_unit_norm_rows():
    x, y = data("digits")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for fit in solve([Problem(torch.from_numpy(x).float(), torch.from_numpy(y), 10)], CS)[0]:
        assert fit.objective == pytest.approx(objective(reference(x, y, fit.C), x, y), rel=1e-4)


def test_a_fold_that_lacks_a_class_never_answers_it():
    """scikit-learn, fitted on the classes that are there, is the oracle: the third class of three is absent."""
    x, y = data("iris")
    kept = y < 2
    fit = solve([Problem(torch.from_numpy(x[kept]), torch.from_numpy(y[kept]), 3)], (1.0,))[0][0]
    assert fit.converged
    assert set(fit.predict(torch.from_numpy(x)).tolist()) <= {0, 1}


def test_a_fold_with_one_class_only_answers_it():
    x, _ = data("iris")
    fit = solve([Problem(torch.from_numpy(x), torch.ones(len(x), dtype=torch.long), 3)], (1.0, 10.0))[0][1]
    assert fit.converged
    assert fit.objective == pytest.approx(0, abs=1e-6)
    assert (fit.predict(torch.from_numpy(x)) == 1).all()


def test_what_does_not_converge_says_so():
    x, y = data("digits")
    fit = solve([Problem(torch.from_numpy(x), torch.from_numpy(y), 10)], (100.0,), max_iterations=2)[0][0]
    assert not fit.converged
    assert fit.gap > 1e-5
    assert fit.iterations == 2


def test_the_gradient_told_is_the_largest_component_over_c_n():
    x, y = data("iris")
    fit = solve([Problem(torch.from_numpy(x), torch.from_numpy(y), 3)], (1.0,), max_iterations=3)[0][0]
    p = torch.softmax(fit.logits(torch.from_numpy(x)), 1).numpy()
    rest = p - np.eye(3)[y]
    mean = x.mean(0)
    _, axes = np.linalg.eigh((x - mean).T @ (x - mean))
    turned = np.abs(np.concatenate([axes.T @ ((x - mean).T @ rest + fit.weights.numpy()), rest.sum(0, keepdims=True)])).max() / len(x)
    assert fit.gradient == pytest.approx(turned, rel=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same_optimum():
    x, y = data("digits")
    here = Problem(torch.from_numpy(x).float(), torch.from_numpy(y), 10)
    there = Problem(here.rows.cuda(), here.labels.cuda(), 10)
    assert solve([there], (1.0,))[0][0].objective == pytest.approx(solve([here], (1.0,))[0][0].objective, rel=1e-4)
