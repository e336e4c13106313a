#!/usr/bin/env python3
"""A head of a language model from its attention matrices, and how it predicts text that it has not seen.

    python3 examples/python/real_head.py [PICTURE.png]
"""

import pathlib
import sys

import numpy as np

import attnreg

# %% Six sequences of tokens behind LayerNorm, and the attention matrices of the head, in half precision.
data = pathlib.Path(__file__).parents[1] / "data" / "head-l2h5"


def sequences(part):
    lines = [line.split() for line in (data / part / "list.txt").read_text().splitlines()]
    load = lambda name: np.load(data / part / name)
    return [load(line[0]) for line in lines], [load(line[1]) for line in lines], [load(line[2]) for line in lines]


queries, keys, attention = sequences("train")
head = attnreg.attention(queries, keys, attention, fit="heads", held_out=sequences("test"))
print(head.message)
print(f"rank {head.rank}; of the sequences it {head.verdict}: |F - B| / |B| = {head.fit.error:.1e} on those of the fit, "
      f"{head.held_out.error:.1e} on others, {head.held_out.uniform.error:.2f} for uniform attention")

# %% Beside the weights of the model: the logits agree, up to what softmax does not see.
WQ, WK, bQ = (np.load(data / f"{name}.npy").astype(float) for name in ("WQ", "WK", "bQ"))
tokens = np.concatenate(queries).astype(float)
u = np.linalg.lstsq(tokens, np.ones(len(tokens)), rcond=None)[0]  # tokens @ u = 1: the bias of the queries
X = (WQ + np.outer(u, bQ)) @ WK.T / np.sqrt(WQ.shape[1])


def logits(X):
    Z = [x.astype(float) @ X @ y.astype(float).T for x, y in zip(queries, keys)]
    return np.concatenate([z - z.mean(axis=1, keepdims=True) for z in Z])


print(f"logits differ by {np.linalg.norm(logits(head.X) - logits(X)) / np.linalg.norm(logits(X)):.1e} of their norm")

# %% The same with scikit-learn's conventions.
estimator = attnreg.AttentionHead(rank=head.rank, method="heads").fit(queries, keys, attention)
held_out = sequences("test")
print(f"score on held-out sequences {estimator.score(*held_out):.4f}")

# %% A picture of one of them.
if len(sys.argv) > 1:
    F, B = estimator.predict(held_out[0][0], held_out[1][0]), held_out[2][0]
    attnreg.plot_attention(F, B)[0].figure.savefig(sys.argv[1], dpi=120)
