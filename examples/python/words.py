#!/usr/bin/env python3
"""Words: a distribution over 4096 words as the softmax of their vectors, and what can be proved about it.

    python3 examples/python/words.py
"""

import pathlib

import numpy as np

import attnreg

# %% A has a vector of 100 numbers for each word; b is the distribution that a query sees.
data = pathlib.Path(__file__).parents[1] / "data" / "words-4096"
A, b = np.load(data / "A.npy"), np.load(data / "b.npy")
words = (data / "words.txt").read_text().split()

# %% softmax(A x) ~ b. The float32 array is read in place.
result = attnreg.solve(A, b, w=1e-4, certificate="full")
print(result.message)
print(f"|f - b| / |b| = {result.fit.relative_residual:.4f}, {result.reads:.0f} reads of A in {result.seconds:.2f} s")
print(f"{result.certificate.kind}: |x - x*| <= {result.certificate.distance_bound:.1e}")

# %% What the fit says of single words.
for k in np.argsort(-result.fitted)[:8]:
    print(f"  {words[k]:12} b = {b[k]:.4f}   softmax(A x) = {result.fitted[k]:.4f}")

# %% The words that matter: those of large leverage are what sampled preconditioners are made of.
scores = attnreg.leverage_scores(A, exact=True)
print("largest leverage:", ", ".join(words[k] for k in np.argsort(-scores.scores)[:8]))
