#!/usr/bin/env python3
"""The table of docs/losses.md: the losses that grow on all presets of `attnreg generate`.

    bench/family.py build/release/bin/attnreg [--rows 20000] [--cols 50]
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

LOSSES = ["exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"]
PRESETS = ["practical", "illcond", "coherent", "sparse", "easy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rows", default="20000")
    parser.add_argument("--cols", default="50")
    arguments = parser.parse_args()
    for loss in LOSSES:
        cells = []
        for preset in PRESETS:
            with tempfile.TemporaryDirectory() as name:
                directory = pathlib.Path(name)
                subprocess.run([arguments.program, "generate", preset, "--loss", loss, "--rows", arguments.rows,
                                "--cols", arguments.cols, "-o", directory], check=True, stdout=subprocess.DEVNULL)
                A = directory / ("A.npz" if preset == "sparse" else "A.npy")
                result = subprocess.run([arguments.program, "solve", A, directory / "b.npy", "--weights",
                                         directory / "w.npy", "--loss", loss, "-q", "-o", directory / "run"],
                                        stdout=subprocess.PIPE, text=True)
                if "nan" in result.stdout.lower():
                    raise SystemExit(f"{loss} on {preset} prints NaN")
                summary = json.loads((directory / "run/run.json").read_text())["summary"]
            fit = summary["fit"]
            size = fit["total_variation" if loss in ("rescaled-exp", "rescaled-cosh") else "relative_residual"]
            cells.append(f"{summary['iterations']}, {size:.2g}, {summary['termination']}")
        print(f"| `{loss}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
