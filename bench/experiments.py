#!/usr/bin/env python3
"""The tables of docs/experiments.md, made anew and put in their places.

    bench/experiments.py build/release/bin/attnreg [--only NAME]... [--quick] [--print]

Each table has a file in bench/claims/: a function `table(bench)` that returns Markdown. It replaces what stands between
`<!-- table NAME -->` and `<!-- end of table NAME -->`. Where a table's peer is a Python package that Debian does not
have, `bench.peer_python(package...)` makes a virtual environment in build/peers. --quick: small sizes, which show that
it works; with it nothing is written. --print: to the terminal alone.
"""

import argparse
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/experiments.md"


class Bench:
    """Runs the program. `scratch` is an empty directory for the files of one table."""

    def __init__(self, program, quick, scratch):
        self.program, self.quick, self.scratch = program, quick, pathlib.Path(scratch)

    def run(self, *words, ranks=1, codes=(0,)):
        """The JSON that `attnreg words --json` prints."""
        command = [str(self.program), *map(str, words), "--json"]
        if ranks > 1:
            command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        if done.returncode not in codes:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def peer_python(self, *packages):
        """The interpreter of a virtual environment that has these packages of PyPI, besides those of Debian."""
        home = ROOT / "build/peers" / ("python-" + "-".join(re.sub(r"[^\w.]", "", package) for package in packages))
        if not (home / "done").exists():
            subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", home], check=True)
            subprocess.run([home / "bin/pip", "install", "-q", *packages], check=True)
            (home / "done").touch()
        return home / "bin/python"


def markdown(heads, rows):
    """A table; numbers with three digits, left column as text."""
    def cell(value):
        return f"{value:.3g}" if isinstance(value, float) else str(value)
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def put(text, name, table):
    """The page with this table in its place."""
    begin, end = f"<!-- table {name} -->\n", f"<!-- end of table {name} -->"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        sys.exit(f"{PAGE} has no place for the table {name}")
    return before + begin + "\n" + table + "\n\n" + rest[rest.index(end):]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in (ROOT / "bench/claims").glob("[!_]*.py"))
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=names)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--print", action="store_true")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "bench"))
    for name in arguments.only or names:
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(arguments.program.resolve(), arguments.quick, scratch)
            table = importlib.import_module("claims." + name).table(bench)
        print(f"{name}\n\n{table}\n", flush=True)
        if not arguments.quick and not arguments.print:
            PAGE.write_text(put(PAGE.read_text(), name, table))


if __name__ == "__main__":
    main()
