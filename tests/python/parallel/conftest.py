import numpy as np
import pytest
from mpi4py import MPI


@pytest.fixture
def comm():
    return MPI.COMM_WORLD


@pytest.fixture
def share(comm):
    """This rank's rows of something, in uneven parts: with 3 ranks or more rank 1 has none."""
    def rows(array):
        n, size = array.shape[0], comm.size
        ends = [n * (k + 1) * (k + 2) // (size * (size + 1)) for k in range(size)]
        if size > 2:
            ends[1] = ends[0]
        return array[(ends[comm.rank - 1] if comm.rank else 0):ends[comm.rank]]
    return rows


@pytest.fixture
def problem():
    generator = np.random.default_rng(5)
    A, x = generator.standard_normal((700, 6)), generator.standard_normal(6)
    b = np.exp(A @ x)
    return A, b / b.sum(), 1e-4
