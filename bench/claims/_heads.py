"""Queries, keys and values of the real head in examples/data, for tables."""

import pathlib

import numpy as np

HEAD = pathlib.Path(__file__).resolve().parents[2] / "examples/data/head-l2h5"


def sequences(part):
    """Q, K and V, each sequences x 128 x 32: (x W + b) of the tokens x of "train" or "test"."""
    x = np.stack([np.load(path).astype(float) for path in sorted((HEAD / part).glob("x*.npy"))])
    return [x @ np.load(HEAD / f"W{name}.npy").astype(float) + np.load(HEAD / f"b{name}.npy") for name in "QKV"]


def as_one(array):
    """The sequences one behind the other."""
    return array.reshape(-1, array.shape[-1])


def save(directory, prefix, arrays):
    paths = [directory / f"{prefix}{name}.npy" for name in "QKV"]
    for path, array in zip(paths, arrays):
        np.save(path, array)
    return paths
