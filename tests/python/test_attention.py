"""Attention, heads and layers: planted ones are found, values are the formulas', options do what they say."""

import json
import os
import subprocess

import numpy as np
import pytest

import attnreg
from conftest import ROOT


class Planted:
    def __init__(self, n=40, d=4, rank=2, seed=1):
        generator = np.random.default_rng(seed)
        self.queries, self.keys = generator.standard_normal((2, n, d))
        self.P, self.Q = generator.standard_normal((2, d, rank))
        self.X = self.P @ self.Q.T
        self.target = attnreg.attention_matrix(self.queries, self.keys, self.X)


@pytest.fixture
def planted():
    return Planted()


def test_attention_matrix_is_softmax(planted):
    Z = planted.queries @ planted.X @ planted.keys.T
    np.testing.assert_allclose(planted.target, np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True), rtol=1e-12)
    causal = attnreg.attention_matrix(planted.queries[:5], planted.keys[:7], planted.X, "causal")
    assert (causal[np.triu_indices(5, 3, 7)] == 0).all() and (causal[np.tril_indices(5, 2, 7)] > 0).all()
    np.testing.assert_allclose(causal.sum(axis=1), 1)


@pytest.mark.parametrize("fit", ["varpro", "joint", "heads"])
def test_a_planted_matrix_is_found(planted, fit):
    found = attnreg.attention(planted.queries, planted.keys, planted.target, fit=fit)
    assert found.success and found.error < 1e-8
    np.testing.assert_allclose(attnreg.attention_matrix(planted.queries, planted.keys, found.X), planted.target,
                               atol=1e-8)
    if fit == "heads":
        assert found.rank == 2 and found.fit.same_largest == 1


def test_low_rank(planted):
    found = attnreg.attention(planted.queries, planted.keys, planted.target, fit="varpro", rank=2)
    assert found.P.shape == (4, 2)
    np.testing.assert_allclose(found.P @ found.Q.T, found.X, atol=1e-12)


def test_value_and_derivatives(planted):
    X = planted.X / 3
    W = np.full(planted.target.shape, 0.01)
    def L(X):
        Z = planted.queries @ X @ planted.keys.T
        F = attnreg.attention_matrix(planted.queries, planted.keys, X)
        return 0.5 * np.sum((F - planted.target) ** 2) + 0.5 * np.sum((W * Z) ** 2)
    found = attnreg.evaluate_attention(planted.queries, planted.keys, planted.target, X, weights=W, hessian=True)
    assert found.fun == pytest.approx(L(X), rel=1e-12) and found.jac_Y is None and found.hess.shape == (16, 16)
    for k in range(16):
        E = 1e-6 * np.eye(16)[k].reshape(4, 4)
        assert found.jac_X.ravel()[k] == pytest.approx((L(X + E) - L(X - E)) / 2e-6, rel=1e-5, abs=1e-8)
    solved = attnreg.attention(planted.queries, planted.keys, planted.target, weights=W, certificate="full", start=X)
    assert solved.certificate.kind == "local minimum" and solved.history.value[0] == pytest.approx(L(X))
    assert solved.fun < L(X)


def test_masks_of_both_kinds_agree(planted):
    target = attnreg.attention_matrix(planted.queries, planted.keys, planted.X, "causal")
    one = attnreg.attention(planted.queries, planted.keys, target, mask="causal")
    other = attnreg.attention(planted.queries, planted.keys, target, mask=np.tri(40, dtype=bool))
    np.testing.assert_array_equal(one.X, other.X)
    assert one.error < 1e-8
    missing = attnreg.attention(planted.queries, planted.keys, target)
    assert any("mask" in warning for warning in missing.warnings)


def test_sequences_of_several_lengths(planted):
    parts = [slice(0, 10), slice(10, 25), slice(25, 40)]
    queries, keys = [planted.queries[p] for p in parts], [planted.keys[p] for p in parts]
    targets = [attnreg.attention_matrix(q, k, planted.X) for q, k in zip(queries, keys)]
    found = attnreg.attention(queries, keys, targets, rank=2, fit="heads", held_out=0.3)
    assert found.verdict == "predicts" and len(found.fit.sequences) == 2 and len(found.held_out.sequences) == 1
    again = attnreg.attention(queries[:2], keys[:2], targets[:2], rank=2, fit="heads",
                              held_out=(queries[2:], keys[2:], targets[2:]))
    assert again.held_out.error == found.held_out.error


def test_heads_on_the_same_inputs(planted):
    other = planted.Q @ planted.P.T
    target = np.stack([planted.target, attnreg.attention_matrix(planted.queries, planted.keys, other)])
    found = attnreg.attention(planted.queries, planted.keys, target.astype(np.float32))
    assert len(found.heads) == 2 and found.success
    for head, X in zip(found.heads, (planted.X, other)):
        assert head.rank == 2
        np.testing.assert_allclose(head.fit.error, 0, atol=1e-5)
        Z = planted.queries @ (head.X - X) @ planted.keys.T
        assert np.abs(Z - Z.mean(axis=1, keepdims=True)).max() < 1e-3


def test_layer():
    generator = np.random.default_rng(2)
    tokens = [generator.standard_normal((30, 4)) for _ in range(6)]
    X, Y = generator.standard_normal((4, 4)), generator.standard_normal((4, 3))
    outputs = [attnreg.attention_matrix(t, t, X) @ t @ Y for t in tokens]
    found = attnreg.attention(tokens, tokens, outputs, tokens)
    assert found.error < 1e-8 and found.is_exact and "recovered" in found.message
    np.testing.assert_allclose(found.Y, Y, atol=1e-6)
    known = attnreg.attention(tokens, tokens, outputs, tokens, known_values=Y)
    np.testing.assert_array_equal(known.Y, Y)
    assert known.error < 1e-8
    joint = attnreg.attention(tokens, tokens, outputs, tokens, fit="joint", start=(X, Y))
    assert joint.success and joint.error < 1e-8
    value = attnreg.evaluate_attention(tokens, tokens, outputs, X, tokens, 0 * Y)
    assert value.fun == pytest.approx(sum(np.sum(B ** 2) for B in outputs))


def test_same_as_the_program(tmp_path):
    """A head of a language model, from the files of the examples."""
    data = ROOT / "examples/data/head-l2h5"
    inputs, targets, held_out = [], [], ([], [], [])
    for part in ("train", "test"):
        for line in (data / part / "list.txt").read_text().splitlines():
            x, _, B, *rest = line.split()
            assert rest in ([], ["causal"])
            (inputs if part == "train" else held_out[0]).append(np.load(data / part / x))
            (targets if part == "train" else held_out[2]).append(np.load(data / part / B))
    mask = "causal" if rest else None
    found = attnreg.attention(inputs, inputs, targets, mask=mask, fit="heads",
                              held_out=(held_out[0], held_out[0], held_out[2], mask))
    subprocess.run([os.environ["ATTNREG_PROGRAM"], "attention", "--sequences", data / "train/list.txt", "--holdout",
                    data / "test/list.txt", "-o", tmp_path / "run", "-q"], check=True, capture_output=True)
    theirs = json.loads((tmp_path / "run/run.json").read_text())["head"]
    assert found.rank == theirs["rank"] == 32 and found.verdict == "predicts"
    np.testing.assert_allclose(found.X, np.load(tmp_path / "run/X.npy"), rtol=1e-6, atol=1e-8)


REFUSED = [
    (lambda p: attnreg.attention(p.queries, p.keys, p.target[:-1]), attnreg.DataError, "target|B|rows"),
    (lambda p: attnreg.attention([p.queries], [p.keys] * 2, [p.target]), attnreg.DataError, "keys has 2 sequences"),
    (lambda p: attnreg.attention([], [], []), attnreg.DataError, "no sequences"),
    (lambda p: attnreg.attention(p.queries[0], p.keys, p.target), attnreg.DataError, "queries has shape"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, mask="casual"), attnreg.UsageError, "causal"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, mask=np.ones(3)), attnreg.DataError, "mask has shape"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, mask=0 * p.target), attnreg.DataError, "sees no key"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, held_out=0.5), attnreg.DataError, "leaves none"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, rank="low"), attnreg.UsageError, "rank is 'low'"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, rank=9), attnreg.DataError, "rank"),
    (lambda p: attnreg.attention(p.queries, p.keys, np.stack([p.target] * 2), rtol=1e-3), attnreg.UsageError, "heads"),
    (lambda p: attnreg.attention(p.queries, p.keys, -p.target, fit="heads"), attnreg.DataError, "negative"),
    (lambda p: attnreg.attention(p.queries, p.keys, p.target, loss="log-odds", fit="varpro"), attnreg.UsageError,
     "log-odds"),
    (lambda p: attnreg.attention(p.queries, p.keys, np.where(p.target > 0, np.nan, 0)), attnreg.DataError, "nan|finite"),
    (lambda p: attnreg.evaluate_attention(p.queries, p.keys, p.target, np.eye(3)), attnreg.DataError, "X"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_wrong_is_an_exception_that_says_what(case, planted):
    call, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        call(planted)
