#!/usr/bin/env python3
"""Several heads on the same inputs against one: CPU time of the program on one core.

    bench/heads/many_heads.py build/release/bin/attnreg DATA [--heads 12] [--repeats 3]

DATA: a directory with train/list.txt, as of `robustness.py`. The first head is that of the data; the others are planted
on its inputs, of rank 32, with logits of the same standard deviation, and stored as float32. Prints the medians and
their ratio, loading and writing included.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile

import numpy as np

import heads

RANK = 32


def planted(sequences, deviation, generator):
    """The attention of a random head on the inputs of each sequence."""
    d1, d2 = sequences[0].queries.shape[1], sequences[0].keys.shape[1]
    X = generator.standard_normal((d1, RANK)) @ generator.standard_normal((RANK, d2))
    spread = np.concatenate([logits(s, X).ravel() for s in sequences]).std()
    return [heads.attention(s.queries, s.keys, X * deviation / spread).astype(np.float32) for s in sequences]


def logits(sequence, X):
    Z = sequence.queries.astype(float) @ X @ sequence.keys.astype(float).T
    return Z - Z.mean(axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    sequences = heads.load(arguments.data / "train")
    logs = [np.log(np.maximum(s.target.astype(float), 1e-30)) for s in sequences]
    deviation = np.concatenate([(z - z.mean(axis=1, keepdims=True)).ravel() for z in logs]).std()
    targets = [[s.target for s in sequences]]
    generator = np.random.default_rng(1)
    targets += [planted(sequences, deviation, generator) for _ in range(arguments.heads - 1)]
    seconds = {1: [], arguments.heads: []}
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        lists = {}
        for count in seconds:
            stacked = [heads.Sequence(s.queries, s.keys, np.stack([t[k] for t in targets[:count]]))
                       for k, s in enumerate(sequences)]
            lists[count] = heads.save(place / f"heads-{count}", stacked)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for _ in range(arguments.repeats):
            for count, file in lists.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([arguments.program, "attention", "--sequences", file, "--threads", "1", "-q", "-o",
                                place / "run", "--force"], env=environment, check=True, stdout=subprocess.DEVNULL)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds[count].append(after.ru_utime - before.ru_utime)
    one, many = (statistics.median(seconds[count]) for count in (1, arguments.heads))
    ratio = statistics.median(b / a for a, b in zip(seconds[1], seconds[arguments.heads]))
    print(f"{arguments.heads} heads: {many:.2f} CPU s, one {one:.2f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
