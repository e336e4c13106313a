"""The conventions of scikit-learn."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

import attnreg
from attnreg import AttentionHead, SoftmaxRegressor
from attnreg.estimators import EXPECTED_FAILED_CHECKS
from conftest import softmax


def checks():
    """All of check_estimator, those that are expected to fail included."""
    estimator = SoftmaxRegressor()
    for check in estimator_checks._yield_all_checks(estimator):
        name = getattr(check, "func", check).__name__
        yield pytest.param(name, check, id=f"{name}-{len(getattr(check, 'keywords', {}))}")


@pytest.mark.parametrize("name, check", checks())
def test_check_estimator(name, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in EXPECTED_FAILED_CHECKS:
            with pytest.raises(AssertionError):
                check("SoftmaxRegressor", SoftmaxRegressor())
        else:
            check("SoftmaxRegressor", SoftmaxRegressor())


def test_expected_failures_are_those_that_there_are():
    assert set(EXPECTED_FAILED_CHECKS) <= {param.values[0] for param in checks()}


def test_regressor_is_solve(problem):
    regressor = SoftmaxRegressor(w=problem.w).fit(problem.A, problem.b)
    np.testing.assert_array_equal(regressor.coef_, attnreg.solve(problem.A, problem.b, problem.w).x)
    np.testing.assert_allclose(regressor.predict(problem.A), softmax(problem.A @ regressor.coef_), rtol=1e-10)
    assert regressor.score(problem.A, problem.b) > 0.999999
    w = np.linspace(0.1, 1, len(problem.b))
    np.testing.assert_array_equal(regressor.fit(problem.A, problem.b, row_weights=w).coef_,
                                  attnreg.solve(problem.A, problem.b, w).x)
    o = np.sin(np.arange(len(problem.b)))
    regressor = SoftmaxRegressor(w=0.1, ridge=1e-3).fit(problem.A, problem.b, offset=o)
    expected = attnreg.solve(problem.A, problem.b, 0.1, ridge=1e-3, offset=o)
    np.testing.assert_array_equal(regressor.coef_, expected.x)
    np.testing.assert_allclose(regressor.predict(problem.A, offset=o), expected.fitted, rtol=1e-10)


def test_clone_pickle_and_search(problem):
    regressor = SoftmaxRegressor(w=0.1, loss="cross-entropy")
    assert clone(regressor).get_params() == regressor.get_params()
    assert regressor.set_params(w=0.2).w == 0.2
    regressor.fit(problem.A, problem.b)
    again = pickle.loads(pickle.dumps(regressor))
    np.testing.assert_array_equal(again.predict(problem.A), regressor.predict(problem.A))
    def correlation(estimator, A, b):  # of distributions over other rows, which have other sums
        return np.corrcoef(estimator.predict(A), b)[0, 1]
    search = GridSearchCV(SoftmaxRegressor(loss="cross-entropy"), {"w": [1e-3, 1e3]}, cv=3, scoring=correlation)
    search.fit(problem.A, problem.b)
    assert search.best_params_ == {"w": 1e-3}


def test_not_converged_is_a_warning(problem):
    with pytest.warns(UserWarning, match="limit"):
        SoftmaxRegressor(w=problem.w, method="newton", start="zero", max_iterations=1).fit(problem.A, problem.b)


class Sequences:
    def __init__(self, count=6, d=4):
        generator = np.random.default_rng(4)
        self.tokens = [generator.standard_normal((30 + s, d)) for s in range(count)]
        self.X = generator.standard_normal((d, 2)) @ generator.standard_normal((2, d))
        self.targets = [attnreg.attention_matrix(t, t, self.X) for t in self.tokens]


@pytest.mark.parametrize("method", ["heads", "varpro"])
def test_head_predicts_other_sequences(method):
    data = Sequences()
    head = AttentionHead(rank=2, method=method).fit(data.tokens[:4], data.tokens[:4], data.targets[:4])
    assert head.X_.shape == (4, 4) and head.P_.shape == head.Q_.shape == (4, 2) and head.rank_ == 2 and head.Y_ is None
    np.testing.assert_allclose(head.P_ @ head.Q_.T, head.X_, atol=1e-12)
    assert head.score(data.tokens[4:], data.tokens[4:], data.targets[4:]) > 1 - 1e-6
    np.testing.assert_allclose(head.predict(data.tokens[5], data.tokens[5]), data.targets[5], atol=1e-7)


def test_groups_are_sequences():
    data = Sequences()
    groups = np.repeat([7, 3, 5, 1, 0, 2], [len(t) for t in data.tokens])
    stacked = np.concatenate(data.tokens)
    head = AttentionHead(rank=2).fit(stacked, stacked, data.targets, groups=groups)
    np.testing.assert_array_equal(head.X_, AttentionHead(rank=2).fit(data.tokens, data.tokens, data.targets).X_)
    assert head.score(stacked, stacked, data.targets, groups=groups) > 1 - 1e-6


def test_head_with_mask_and_layer_with_values():
    data = Sequences()
    masked = [attnreg.attention_matrix(t, t, data.X, "causal") for t in data.tokens]
    head = AttentionHead(rank=2, method="heads").fit(data.tokens, data.tokens, masked, mask="causal")
    assert head.score(data.tokens, data.tokens, masked, mask="causal") > 1 - 1e-6
    assert head.score(data.tokens, data.tokens, masked) < 0.9
    Y = np.random.default_rng(1).standard_normal((4, 3))
    outputs = [F @ t @ Y for F, t in zip(data.targets, data.tokens)]
    layer = AttentionHead().fit(data.tokens, data.tokens, outputs, values=data.tokens)
    assert layer.Y_.shape == (4, 3)
    assert layer.score(data.tokens, data.tokens, outputs, values=data.tokens) > 1 - 1e-5


def test_head_clone_pickle_and_errors():
    data = Sequences(2)
    head = AttentionHead(rank=2, method="heads")
    assert clone(head).get_params() == head.get_params()
    head.fit(data.tokens, data.tokens, data.targets)
    again = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(again.X_, head.X_)
    with pytest.raises(attnreg.DataError, match="columns, X is"):
        head.predict(data.tokens[0][:, :2], data.tokens[0])
    with pytest.raises(attnreg.DataError, match="numbers for"):
        head.fit(data.tokens[0], data.tokens[0], data.targets[:1], groups=[1])
    with pytest.raises(Exception, match="not fitted"):
        AttentionHead().predict(data.tokens[0], data.tokens[0])
    with pytest.raises(attnreg.DataError, match="axis of heads"):
        AttentionHead().fit([data.tokens[0]], [data.tokens[0]], [np.stack([data.targets[0]] * 2)])
