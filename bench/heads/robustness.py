#!/usr/bin/env python3
"""How a real head is found where its data are damaged: held-out error with default options, beside a goal.

    bench/heads/robustness.py build/release/bin/attnreg DATA [--only NAME...] [--form FORM...] [--seeds 3] [--ranks 1]

DATA: a directory with train/list.txt and test/list.txt. Each row damages the sequences of the fit; the error |F - B| /
|B| is on the test sequences, undamaged (but inputs of few bits are so there, too, as in practice; where these are exact
is a row of its own). Median over the seeds where there is chance. The goals are those of a NumPy reference on head-l2h5,
16 + 8 sequences; ratios are to them. Code 1 if one is above --most, or the warning is missing that three sequences
do not determine the head.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

import heads

FORMS = ("log-odds", "cross-entropy", "normalised")


def bfloat16(array):
    """Rounded to 8 bits of significand, half up; as float32, for .npy has no such type."""
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x8000) >> 16 << 16).astype(np.uint32).view(np.float32)


def normalised(B):
    return (B / B.sum(axis=1, keepdims=True)).astype(np.float32)


def stored_as(round_):
    return lambda sequence, _: replace(sequence, target=round_(sequence.target))


def inputs_as(round_):
    return lambda sequence, _: replace(sequence, queries=round_(sequence.queries), keys=round_(sequence.keys))


def multiplied(deviation):
    """Each number times e^(deviation N(0, 1))."""
    def damage(sequence, generator):
        noise = np.exp(deviation * generator.standard_normal(sequence.target.shape))
        return replace(sequence, target=normalised(sequence.target.astype(float) * noise))
    return damage


def added(deviation):
    """N(0, deviation^2) added, what is negative set to 0."""
    def damage(sequence, generator):
        noise = deviation * generator.standard_normal(sequence.target.shape)
        return replace(sequence, target=np.maximum(sequence.target + noise, 0).astype(np.float32))
    return damage


def eight_bits(sequence, _):
    return replace(sequence, target=(np.round(sequence.target.astype(float) * 255) / 255).astype(np.float32))


def largest(count):
    """The largest numbers of each row, the others hidden by a mask."""
    def damage(sequence, _):
        B = sequence.target.astype(float)
        mask = B >= np.sort(B, axis=1)[:, -count][:, None]
        return replace(sequence, target=normalised(np.where(mask, B, 0)), mask=mask)
    return damage


def causal(noise=0.0):
    """The attention of a head with the same X behind a causal mask."""
    def damage(sequence, generator):
        B = np.where(np.tri(*sequence.target.shape, dtype=bool), sequence.target.astype(float), 0)
        B = B * np.exp(noise * generator.standard_normal(B.shape)) if noise else B
        return replace(sequence, target=normalised(B), mask="causal")
    return damage


def padded(sequence, generator):
    """Behind the first 64 to 124 tokens there is padding: no query sees it, and padded queries have no target."""
    count = int(generator.integers(64, 125))
    B = sequence.target.astype(float).copy()
    B[:, count:] = 0
    B = normalised(B)
    B[count:] = 0
    mask = np.zeros(B.shape, bool)
    mask[:, :count] = True
    return replace(sequence, target=B, mask=mask)


def whole(sequence, _):
    return sequence


@dataclass
class Row:
    damage: Callable
    goals: tuple = (None, None, None)  # of FORMS; None: nothing was measured
    sequences: int = 0                 # the first ones; 0: all
    chance: bool = False
    test: Callable = whole
    warns: bool = False                # that the sequences do not determine X: the error means nothing


def half(array):
    return array.astype(np.float16)


ROWS = {
    "clean": Row(whole, (1e-6,) * 3),
    "multiplicative 1 %": Row(multiplied(0.01), (2.1e-3, 3.2e-3, 7.5e-3), chance=True),
    "multiplicative 10 %": Row(multiplied(0.1), (2.3e-2, 3.8e-2, 9.0e-2), chance=True),
    "B as float16": Row(stored_as(half), (6e-5, 6e-5, 4e-4)),
    "B as bfloat16": Row(stored_as(bfloat16), (3e-4, 5e-4, 3e-3)),
    "inputs as float16": Row(inputs_as(half), (2e-4, 3e-4, None), test=inputs_as(half)),
    "inputs as float16, exact ones in the test": Row(inputs_as(half)),
    "inputs as bfloat16": Row(inputs_as(bfloat16), (2e-3, 2e-3, None), test=inputs_as(bfloat16)),
    "inputs as bfloat16, exact ones in the test": Row(inputs_as(bfloat16), (2e-3, 2e-3, None)),
    "additive 1e-4, clipped": Row(added(1e-4), (3e-2, 5e-3, 3e-3), chance=True),
    "additive 1e-3, clipped": Row(added(1e-3), (0.12, 5e-2, 4e-2), chance=True),
    "uint8, half are zeros": Row(eight_bits, (0.10, 0.14, 0.07)),
    "top 32, mask given": Row(largest(32), (5e-5, 5e-5, 2e-6)),
    "causal": Row(causal(), (1e-6,) * 3),
    "causal, 1 %": Row(causal(0.01), (2.8e-3, 5e-3, 1e-2), chance=True),
    "padding to 64..124 keys": Row(padded, (9e-7, 1e-6, 6e-7), chance=True),
    "4 sequences": Row(whole, (1e-6,) * 3, sequences=4),
    "3 sequences": Row(whole, sequences=3, warns=True),
}


def measure(row, form, seed, arguments, directory):
    """The error on the test sequences, CPU seconds, and whether a warning says that X is not determined."""
    generator = np.random.default_rng(seed)
    train = [row.damage(sequence, generator) for sequence in heads.load(arguments.data / "train")]
    test = [row.test(sequence, generator) for sequence in heads.load(arguments.data / "test")]
    head = heads.recover(arguments.program, heads.save(directory / "train", train[:row.sequences or None]), "--form",
                         form, held_out=heads.save(directory / "test", test), ranks=arguments.ranks)
    warned = any("hardly determine" in warning for warning in head["warnings"])
    return head["held_out"]["all"]["error"], head["cpu_seconds"], head["rank"], warned


def cell(row, form, arguments):
    """The text of a cell, and whether it is as good as wanted."""
    found = []
    for seed in range(1, 1 + (arguments.seeds if row.chance else 1)):
        with tempfile.TemporaryDirectory() as name:
            found.append(measure(row, form, seed, arguments, pathlib.Path(name)))
    error, seconds = (statistics.median(column) for column in list(zip(*found))[:2])
    text = f"{error:.1e}"
    good = not row.warns or all(warned for *_, warned in found)
    if not row.warns and any(warned for *_, warned in found):
        text += " warned"
    goal = row.goals[FORMS.index(form)]
    if row.warns:
        text = ("warned, " if good else "NO WARNING, ") + text
    elif goal is not None:
        good = error <= arguments.most * goal
        text += f" / {goal:.1e} = {error / goal:.2f}" + ("" if good else " MISSED")
    ranks = sorted({rank for *_, rank, _ in found})
    return f"{text}; rank {'/'.join(map(str, ranks))}, {seconds:.2f} s", good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--form", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--most", type=float, default=1.3)
    arguments = parser.parse_args()
    missed = 0
    print(f"| damage | {' | '.join(arguments.form)} |\n|---|{'---|' * len(arguments.form)}", flush=True)
    for name in arguments.only:
        cells = [cell(ROWS[name], form, arguments) for form in arguments.form]
        missed += sum(not good for _, good in cells)
        print(f"| {name} | {' | '.join(text for text, _ in cells)} |", flush=True)
    print(f"{missed} of the cells missed" if missed else "all cells as wanted")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
