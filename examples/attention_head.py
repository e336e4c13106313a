#!/usr/bin/env python3
"""Plants an attention head X = W_Q W_K^T, makes its attention matrices, and recovers it with `attnreg attention`.

The tokens are random numbers, and then the words of examples/data/words-4096: in the second case the keys are vectors
of real words, far from uncorrelated. Printed is how far the head that was found is from the one that was planted.

    examples/attention_head.py --program build/release/bin/attnreg --ranks 2
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

WORDS = pathlib.Path(__file__).parent / "data" / "words-4096" / "A.npy"


def attention(queries, keys, X):
    """softmax(queries X keys^T), row by row."""
    Z = queries @ X @ keys.T
    F = np.exp(Z - Z.max(axis=1, keepdims=True))
    return F / F.sum(axis=1, keepdims=True)


def random_tokens(generator, count, dimensions):
    return generator.standard_normal((count, dimensions))


def word_tokens(generator, count, dimensions):
    """Random words, in the coordinates of their principal components, each scaled to variance 1."""
    words = np.load(WORDS).astype(float)
    words -= words.mean(axis=0)
    left, _, _ = np.linalg.svd(words, full_matrices=False)
    return np.sqrt(len(words)) * left[generator.choice(len(words), count, replace=False), :dimensions]


def plant(directory, tokens, arguments):
    """Writes queries, keys and attention matrices of all sequences, and their list; returns the head."""
    generator = np.random.default_rng(arguments.seed)
    d, r = arguments.dimensions, arguments.head
    W_Q, W_K = generator.standard_normal((2, d, r))
    X = W_Q @ W_K.T
    X *= arguments.spread / np.linalg.norm(X)  # the logits' standard deviation for uncorrelated tokens
    lines = []
    for k in range(arguments.sequences):
        sequence = tokens(generator, arguments.tokens, d)  # self-attention: queries and keys are the same tokens
        names = [f"tokens{k}.npy", f"tokens{k}.npy", f"attention{k}.npy"]
        np.save(directory / names[0], sequence)
        np.save(directory / names[2], attention(sequence, sequence, X))
        lines.append(" ".join(names))
    (directory / "list.txt").write_text("\n".join(lines) + "\n")
    return X


def recover(directory, arguments):
    """Runs attnreg; returns X = P Q^T and the summary."""
    command = [arguments.program, "attention", "--sequences", directory / "list.txt", "--rank", arguments.head, "-o",
               directory / "run", "--quiet"]
    if arguments.ranks > 1:
        command = [arguments.mpirun, "-n", arguments.ranks, *command]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if result.returncode not in (0, 4):
        sys.exit(result.stderr)
    P, Q = (np.load(directory / "run" / name) for name in ("P.npy", "Q.npy"))
    return P @ Q.T, json.loads((directory / "run" / "run.json").read_text())["summary"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/attnreg")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--dimensions", type=int, default=32, help="of a token")
    parser.add_argument("--head", type=int, default=4, help="rank r of the head")
    parser.add_argument("--tokens", type=int, default=256, help="in a sequence")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--spread", type=float, default=2, help="standard deviation of the logits")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    print("tokens   termination          iterations  seconds  error of F   error of X")
    for name, tokens in (("random", random_tokens), ("words", word_tokens)):
        with tempfile.TemporaryDirectory() as place:
            directory = pathlib.Path(place)
            X = plant(directory, tokens, arguments)
            found, summary = recover(directory, arguments)
            print(f"{name:8} {summary['termination']:20} {summary['iterations']:10} {summary['seconds']:8.2f}"
                  f"  {summary['relative_error']:.2e}     {np.linalg.norm(found - X) / np.linalg.norm(X):.2e}")


if __name__ == "__main__":
    main()
