#!/usr/bin/env python3
"""Writes a test problem for  min_x 1/2 |softmax(A x) - b|^2 + 1/2 |diag(w) A x|^2.

usage: generate.py PRESET N D OUT            PRESET: easy, practical, illcond, coherent, sparse
       generate.py words --from DIR --weight W OUT

A.npy (n x d, float64, C order), b.npy, w.npy, meta.json; the presets also x_true.npy. `sparse` has no A.npy but A.npz, as
SciPy writes it, and the same arrays as A_data.npy, A_indices.npy, A_indptr.npy. A problem has the same bytes each time.
`words` takes A.npy and b.npy from DIR, A in double precision, and gives every row the weight W.

Rows of G are N(0, I/d): x_true of length sqrt(d) spread gives logits with standard deviation `spread`.

easy       A = G; b = softmax(A x_true) with 5 % noise; w^2 = 100 + 1 / sigma_min(A)^2: nearly a ridge regression
practical  A = G; b = softmax(A x_true), spread 3; w = 1e-3 / sqrt(n), log-normal by 25 %
illcond    the same with A = G diag(1 .. 1e-5) Q, x_true along direction k like sigma_k^(-1/2)
coherent   rows of G scaled by |t_2|; x_true orthogonal to the d/4 longest, 1 / sum b^2 = 200; w as practical
sparse     ten N(0, 1/10) per row; b, w as practical
"""
import argparse
import json
import os

import numpy as np

PRESETS = ["easy", "practical", "illcond", "coherent", "sparse"]
SEED = 20240607
CHUNK = 1 << 22  # doubles drawn at a time; part of the definition of the data
SPREAD = 3.0
WEIGHT_SCALE = 1e-3
DECAY = 1e5
SUPPORT = 200.0
NONZEROS = 10


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def support(z):
    p = softmax(z)
    return 1.0 / float(p @ p)


def scale_to_support(z, target):
    """s > 0 with support(s z) = target, by bisection: the support falls in s."""
    low, high = 0.0, 1.0
    while support(high * z) > target:
        high *= 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        if support(middle * z) > target:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


class Streams:
    """Independent random streams of a problem."""

    def __init__(self, preset, n, d):
        root = np.random.SeedSequence([SEED, PRESETS.index(preset), n, d])
        self.rows, self.solution, self.noise, self.rest = [
            np.random.Generator(np.random.SFC64(s)) for s in root.spawn(4)]


def small_weights(n, stream):
    return np.full(n, WEIGHT_SCALE / np.sqrt(n)) * np.exp(0.25 * stream.standard_normal(n))


def chunks(n, d):
    rows = max(1, CHUNK // d)
    return [(begin, min(n, begin + rows)) for begin in range(0, n, rows)]


def sparse_problem(n, d, out, streams):
    import scipy.sparse

    if d < NONZEROS:
        raise SystemExit(f"sparse needs at least {NONZEROS} columns, not {d}")
    x_true = streams.solution.standard_normal(d) * SPREAD
    # One column in each of ten ranges of equal length: distinct, and sorted by construction.
    edges = (np.arange(NONZEROS + 1) * d) // NONZEROS
    columns = np.empty((n, NONZEROS), dtype=np.int32)
    for k in range(NONZEROS):
        columns[:, k] = streams.rows.integers(edges[k], edges[k + 1], size=n)
    values = streams.rows.standard_normal((n, NONZEROS)) / np.sqrt(NONZEROS)
    pointers = np.arange(0, n * NONZEROS + 1, NONZEROS, dtype=np.int64)
    A = scipy.sparse.csr_matrix((values.ravel(), columns.ravel(), pointers), shape=(n, d))
    np.save(out + "/A_data.npy", A.data)
    np.save(out + "/A_indices.npy", A.indices.astype(np.int32))
    np.save(out + "/A_indptr.npy", A.indptr.astype(np.int64))
    scipy.sparse.save_npz(out + "/A.npz", A, compressed=False)
    z = A @ x_true
    return x_true, z, softmax(z), small_weights(n, streams.rest)


def dense_problem(preset, n, d, out, streams):
    A = np.lib.format.open_memmap(out + "/A.npy", mode="w+", dtype="<f8", shape=(n, d))
    x_true = streams.solution.standard_normal(d)
    transform = None
    if preset == "illcond":
        Q, _ = np.linalg.qr(streams.rest.standard_normal((d, d)))
        sigma = np.logspace(0, -np.log10(DECAY), d)
        transform = sigma[:, None] * Q
        y = np.sqrt(sigma) * x_true
        x_true = Q.T @ (y / sigma) * np.sqrt(d / (y @ y))
    for begin, end in chunks(n, d):
        G = streams.rows.standard_normal((end - begin, d)) / np.sqrt(d)
        if preset == "illcond":
            G = G @ transform
        elif preset == "coherent":
            t = streams.rows.standard_normal((end - begin, 2))
            G *= (np.abs(streams.rows.standard_normal(end - begin)) / np.sqrt(0.5 * (t * t).sum(1)))[:, None]
        A[begin:end] = G

    if preset == "coherent":
        x_true = coherent_solution(A, x_true)
    elif preset != "easy":
        x_true *= SPREAD
    z = np.asarray(A @ x_true)
    b = softmax(z)
    if preset == "easy":
        b = np.abs(b * (1 + 0.05 * streams.noise.standard_normal(n)))
        b /= b.sum()
        w = np.full(n, np.sqrt(100 + 1.0 / smallest_gram_eigenvalue(A)))
    else:
        w = small_weights(n, streams.rest)
    A.flush()
    return x_true, z, b, w


def coherent_solution(A, x_true):
    """Orthogonal to the d/4 longest rows, which keeps the logits finite; scaled to the support of b."""
    n, d = A.shape
    lengths = np.concatenate([np.einsum("ij,ij->i", A[i:j], A[i:j]) for i, j in chunks(n, d)])
    longest = np.argpartition(-lengths, d // 4)[: d // 4]
    Q, _ = np.linalg.qr(A[longest].T)
    x_true = x_true - Q @ (Q.T @ x_true)
    return x_true * scale_to_support(np.asarray(A @ x_true), SUPPORT)


def smallest_gram_eigenvalue(A):
    n, d = A.shape
    gram = np.zeros((d, d))
    for begin, end in chunks(n, d):
        gram += A[begin:end].T @ A[begin:end]
    return float(np.linalg.eigvalsh(gram)[0])


def preset_problem(preset, n, d, out):
    streams = Streams(preset, n, d)
    if preset == "sparse":
        x_true, z, b, w = sparse_problem(n, d, out, streams)
    else:
        x_true, z, b, w = dense_problem(preset, n, d, out, streams)
    np.save(out + "/x_true.npy", x_true)
    np.save(out + "/b.npy", b)
    np.save(out + "/w.npy", w)
    return dict(preset=preset, rows=n, columns=d, seed=SEED, true_logits_std=float(z.std()))


def words_problem(source, weight, out):
    A = np.load(source + "/A.npy").astype(np.float64)
    np.save(out + "/A.npy", np.ascontiguousarray(A))
    np.save(out + "/b.npy", np.load(source + "/b.npy").astype(np.float64))
    np.save(out + "/w.npy", np.full(A.shape[0], weight))
    return dict(preset="words", rows=A.shape[0], columns=A.shape[1], weight=weight)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    problems = parser.add_subparsers(dest="preset", required=True, metavar="PRESET")
    for preset in PRESETS:
        one = problems.add_parser(preset)
        one.add_argument("rows", type=int, metavar="N")
        one.add_argument("columns", type=int, metavar="D")
        one.add_argument("out", metavar="OUT")
    words = problems.add_parser("words")
    words.add_argument("--from", dest="source", required=True, metavar="DIR", help="directory with A.npy and b.npy")
    words.add_argument("--weight", type=float, required=True, metavar="W")
    words.add_argument("out", metavar="OUT")
    options = parser.parse_args()

    os.makedirs(options.out, exist_ok=True)
    if options.preset == "words":
        meta = words_problem(options.source, options.weight, options.out)
    else:
        meta = preset_problem(options.preset, options.rows, options.columns, options.out)
    with open(options.out + "/meta.json", "w") as file:  # last: a directory with it is complete
        json.dump(meta, file)
        file.write("\n")


if __name__ == "__main__":
    main()
