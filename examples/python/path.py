#!/usr/bin/env python3
"""A path of weights: how much ridge a fit takes, and its picture. Over several ranks each makes its own rows:

    python3 examples/python/path.py [PICTURE.png]
    mpirun -n 3 python3 examples/python/path.py
"""

import sys

import numpy as np

import attnreg

try:
    from mpi4py import MPI
    comm = MPI.COMM_WORLD
except ImportError:
    comm = None
rank, size = (comm.rank, comm.size) if comm else (0, 1)

# %% The rows of this rank. A target that is a softmax of A x but for noise.
rows, columns = 20000, 30
mine = range(rank * rows // size, (rank + 1) * rows // size)
x_true = np.random.default_rng(7).standard_normal(columns)
A, b = np.empty((len(mine), columns)), np.empty(len(mine))
for k, row in enumerate(mine):  # a function of the row: the same problem on any number of ranks
    generator = np.random.default_rng([7, row])
    A[k] = generator.standard_normal(columns)
    b[k] = np.exp(A[k] @ x_true / 2 + 0.3 * generator.standard_normal())
b /= comm.allreduce(b.sum()) if comm else b.sum()

# %% Ten weights, each from the solution before.
weights = np.geomspace(1e-2, 1e-8, 10)
path = attnreg.path(A, b, weights, comm=comm)
if rank == 0:
    print(path.message)
    print("weight     L(x)         |x|      |x - x_true / 2|  residual  reads")
    for w, result in zip(path.weights, path.results):
        print(f"{w:.1e}  {result.fun:.5e}  {np.linalg.norm(result.x):7.4f}  {np.linalg.norm(result.x - x_true / 2):.4f}"
              f"            {result.fit.relative_residual:.4f}    {result.reads:.0f}")
    if len(sys.argv) > 1:
        path.plot()[0].figure.savefig(sys.argv[1], dpi=120)
