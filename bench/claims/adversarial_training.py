"""Half-space reporting: neurons that are looked at, and the time beside all of them, over the width and the dimension."""

import numpy as np
from sklearn.datasets import load_digits

from experiments import markdown

COLUMNS = ("active", "expected", "bound", "tree", "touched", "accuracy", "robust", "seconds", "dense_seconds", "difference")


def write_digits(directory, components):
    """Odd digits against even ones, in their first principal components."""
    digits = load_digits()
    X = digits.data - digits.data.mean(axis=0)
    _, _, axes = np.linalg.svd(X, full_matrices=False)
    np.save(directory / "X.npy", X @ axes[:components].T)
    np.save(directory / "y.npy", np.where(digits.target % 2 == 1, 1.0, -1.0))
    return directory / "X.npy", directory / "y.npy"


def lines(name, run):
    found = run["tables"][0]
    places = [found["columns"].index(column) for column in COLUMNS]
    return [(name, int(row[0]), *(row[place] for place in places)) for row in found["rows"]]


def table(bench):
    rows = []
    widths, steps = ("1000,10000", 2) if bench.quick else ("1000,10000,100000,1000000", 20)
    train = ("experiment", "adversarial-training")
    for dimension in (4, 8):
        run = bench.run(*train, "--dimension", dimension, "--widths", widths, "--steps", steps)
        rows += lines(f"directions, d = {dimension}", run)
    for components in (4, 8, 16, 60):
        files = write_digits(bench.scratch, components)
        run = bench.run(*train, *files, "--widths", "10000" if bench.quick else "100000", "--steps", steps)
        rows += lines(f"digits, d = {components}", run)
    heads = ("active", "P(N >= b)", "m^-0.2", "tree", "touched", "accuracy", "under attack", "seconds", "dense",
             "difference of w")
    return markdown(("points", "m", *heads), rows)
