"""What the scripts of this directory share: sequences of a head, their files, and one run of attnreg on them."""

import json
import os
import pathlib
import subprocess
import tempfile
from dataclasses import dataclass

import numpy as np


@dataclass
class Sequence:
    """Queries n1 x d, keys n2 x d, attention n1 x n2, and which keys a query sees: "none", "causal" or n1 x n2 flags."""

    queries: np.ndarray
    keys: np.ndarray
    target: np.ndarray
    mask: object = "none"


def load(directory):
    """The sequences of DIRECTORY/list.txt, `queries keys target` in each line, as they are stored."""
    directory = pathlib.Path(directory)
    lines = [line.split()[:3] for line in (directory / "list.txt").read_text().splitlines() if line.strip()]
    return [Sequence(*(np.load(directory / name) for name in names)) for names in lines]


def save(directory, sequences):
    """Writes them with a list; returns the list."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for k, sequence in enumerate(sequences):
        mask = sequence.mask
        if not isinstance(mask, str):
            np.save(directory / f"mask{k}.npy", mask)
            mask = f"mask{k}.npy"
        for role in ("queries", "keys", "target"):
            np.save(directory / f"{role}{k}.npy", getattr(sequence, role))
        lines.append(f"queries{k}.npy keys{k}.npy target{k}.npy mask={mask}")
    (directory / "list.txt").write_text("\n".join(lines) + "\n")
    return directory / "list.txt"


def attention(queries, keys, X, mask="none"):
    Z = queries.astype(float) @ X @ keys.astype(float).T
    if isinstance(mask, str):
        mask = np.tri(*Z.shape, dtype=bool) if mask == "causal" else np.ones(Z.shape, bool)
    Z = np.where(mask, Z, -np.inf)
    F = np.exp(Z - Z.max(axis=1, keepdims=True))
    return F / F.sum(axis=1, keepdims=True)


def truth(directory):
    """X behind the attention of DIRECTORY: W_Q W_K^T / sqrt(r) with the query bias, by a u with x u = 1 for all inputs."""
    WQ, WK, bQ = (np.load(pathlib.Path(directory) / f"{name}.npy").astype(float) for name in ("WQ", "WK", "bQ"))
    x = np.concatenate([sequence.queries for sequence in load(pathlib.Path(directory) / "train")]).astype(float)
    u = np.linalg.lstsq(x, np.ones(len(x)), rcond=None)[0]
    return (WQ + np.outer(u, bQ)) @ WK.T / np.sqrt(WQ.shape[1])


def recover(program, train, *options, held_out=None, ranks=1):
    """Runs `attnreg attention` on a list; its `head` of run.json, with the warnings."""
    launch = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                       "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if not launch:  # Open MPI's programs without mpirun would share a session directory
            environment |= {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_orte_tmpdir_base": name}
        out = pathlib.Path(name) / "run"
        command = [*launch, program, "attention", "--sequences", train, "--threads", "1", "-q", "-o", out, *options]
        if held_out:
            command += ["--holdout", held_out]
        result = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True,
                                check=False)
        if result.returncode not in (0, 4):
            raise SystemExit(f"{' '.join(map(str, command))}: code {result.returncode}\n{result.stderr}")
        run = json.loads((out / "run.json").read_text())
    return {**run["head"], "warnings": run["warnings"], "converged": result.returncode == 0}
