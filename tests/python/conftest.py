"""What the tests of the Python package share: problems, and the formulas in NumPy that they are compared with."""

import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def value(A, b, x, w):
    """L(x) of the loss softmax."""
    z = A.astype(float) @ x
    return 0.5 * np.sum((softmax(z) - b) ** 2) + 0.5 * np.sum((w * z) ** 2)


def gradient(A, b, x, w):
    A = A.astype(float)
    z = A @ x
    f = softmax(z)
    return A.T @ (f * (f - b) - f * (f @ (f - b)) + w ** 2 * z)


class Problem:
    def __init__(self, n=600, d=7, seed=1):
        generator = np.random.default_rng(seed)
        self.A = generator.standard_normal((n, d))
        self.x_true = generator.standard_normal(d)
        self.b = softmax(self.A @ self.x_true)
        self.w = 1e-3 / np.sqrt(n)


@pytest.fixture
def problem():
    return Problem()


@pytest.fixture(scope="session")
def words():
    directory = ROOT / "examples/data/words-4096"
    return np.load(directory / "A.npy"), np.load(directory / "b.npy")
