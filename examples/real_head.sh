#!/usr/bin/env bash
# Recovers an attention head of a language model from what enters it and its attention matrices, measures how it
# predicts text that it has not seen, and compares it with the weights. Then what too little text does.
#   PATH=build/release/bin:$PATH examples/real_head.sh [DIRECTORY FOR THE RESULTS]
# docs/tutorial-attention.md explains what is printed.
set -euo pipefail
data=$(cd "$(dirname "$0")/data/head-l2h5" && pwd)
out=${1:-$(mktemp -d)}
mkdir -p "$out"

echo '== Six sequences'
attnreg attention --sequences "$data/train/list.txt" --holdout "$data/test/list.txt" -o "$out/head" --force -q

echo
echo '== Beside the weights'
"${PYTHON:-python3}" - "$data" "$out/head" <<'PYTHON'
import pathlib
import sys

import numpy as np

data, run = map(pathlib.Path, sys.argv[1:])
WQ, WK, bQ = (np.load(data / f"{name}.npy").astype(float) for name in ("WQ", "WK", "bQ"))
X, P, Q = (np.load(run / f"{name}.npy") for name in ("X", "P", "Q"))
x = [np.load(file).astype(float) for file in sorted((data / "train").glob("x*.npy"))]

# LayerNorm: x u = 1 for all tokens. The bias of the queries is u bQ^T, and what X has along u on the side of the keys
# adds the same number to all logits of a query.
tokens = np.concatenate(x)
u = np.linalg.lstsq(tokens, np.ones(len(tokens)), rcond=None)[0]
true_P = WQ + np.outer(u, bQ)

def logits(X):
    Z = [y @ X @ y.T for y in x]
    return np.concatenate([z - z.mean(axis=1, keepdims=True) for z in Z])

true = logits(true_P @ WK.T / np.sqrt(WQ.shape[1]))
print(f"logits differ by {np.linalg.norm(logits(X) - true) / np.linalg.norm(true):.1e} of their norm")

def largest_angle(one, other):
    """In degrees, between the spaces that the columns of two matrices span."""
    one, other = (np.linalg.qr(columns)[0] for columns in (one, other))
    return np.degrees(np.arcsin(min(1, np.linalg.norm(other - one @ (one.T @ other), 2))))

without_u = np.eye(len(u)) - np.outer(u, u) / (u @ u)
print(f"largest angle between P and W_Q {largest_angle(tokens @ P, tokens @ true_P):.2f} degrees, as the tokens see them")
print(f"largest angle between Q and W_K {largest_angle(tokens @ without_u @ Q, tokens @ without_u @ WK):.2f} degrees")
PYTHON

echo
echo '== Three sequences, which do not determine it'
awk -v at="$data/train/" 'NR <= 3 { print at $1, at $2, at $3 }' "$data/train/list.txt" > "$out/three.txt"
attnreg attention --sequences "$out/three.txt" --holdout "$data/test/list.txt" -o "$out/three" --force -q
