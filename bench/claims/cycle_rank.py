"""Tensor rings: starts that reach the noise, and the time of one, beside TensorLy on the same tensor."""

import json
import os
import pathlib
import statistics
import subprocess

import numpy as np

from experiments import markdown

NOISE, RANK = 0.01, 4
ENOUGH = 1.05 * NOISE


def make_tensor(path, n):
    """U, V, W of N(0, 1), and noise of 1 % of the norm."""
    generator = np.random.default_rng(1)
    U, V, W = (generator.standard_normal((n, RANK, RANK)) for _ in range(3))
    T = np.einsum("abil,cli->abc", np.einsum("aij,bjl->abil", U, V), W, optimize=True)
    noise = generator.standard_normal(T.shape)
    np.save(path, T + NOISE * np.linalg.norm(T) / np.linalg.norm(noise) * noise)


def line(name, n, starts):
    """starts: (sweeps, residual, seconds) each."""
    reached = [start for start in starts if start[1] <= 1.01 * ENOUGH]
    median = [statistics.median(start[k] for start in reached) if reached else float("nan") for k in range(3)]
    return (name, n, f"{len(reached)} of {len(starts)}", median[0], median[2], median[1])


def table(bench):
    rows = []
    starts, sweeps = 6, 60
    peer = pathlib.Path(__file__).with_name("_tensor_ring_peer.py")
    python = bench.peer_python("tensorly")
    for n in (20,) if bench.quick else (100, 300):
        T = bench.scratch / f"T{n}.npy"
        make_tensor(T, n)
        draws = 50 * RANK ** 2
        kinds = [("drawn", draws)] + [("all equations", 0)] * (n <= 100)  # of which a sweep takes long for more
        for kind, drawn in kinds:
            for ranks in (1, 2):
                run = bench.run("experiment", "cycle-rank", T, "--rank", RANK, "--starts", starts, "--sweeps", sweeps,
                                "--residual", ENOUGH, "--sampled-rows", drawn, ranks=ranks)
                found = run["tables"][0]
                places = [found["columns"].index(column) for column in ("sweeps", "residual", "seconds")]
                rows.append(line(f"attnreg, {kind}, {ranks} rank" + "s" * (ranks > 1), n,
                                 [[row[place] for place in places] for row in found["rows"]]))
            command = [python, peer, T, RANK, drawn, starts, sweeps, ENOUGH]
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True,
                                  env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
            rows.append(line(f"TensorLy, {kind}", n, json.loads(done.stdout)))
    return markdown((f"rank {RANK}, noise {NOISE}", "n", "starts that reach it", "sweeps", "seconds a start", "residual"), rows)
