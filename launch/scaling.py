#!/usr/bin/env python3
"""Strong and weak scaling: solves the same problem, or one that grows with the ranks, on several numbers of ranks.

    launch/scaling.py strong --rows 400000 --cols 100 --ranks 1,2,4,8 -o strong
    launch/scaling.py weak --rows 100000 --cols 100 --ranks 1,2 -o weak      # rows per rank
    launch/plot_scaling.py strong

Writes DIR/scaling.csv and, beside it, what the figures depend on: environment.json, and doctor.json of every number of
ranks. One thread a rank, or OMP_NUM_THREADS. More ranks than cores on this machine are run for the counts only. On a
cluster give --launch, inside a job: --launch 'srun --mpi=pmix -n {ranks}', and take the problem directory from a file
system that all nodes see.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import platform
import shlex
import shutil
import statistics
import subprocess
import sys

BUILT = pathlib.Path(__file__).resolve().parents[1] / "build/release/bin/attnreg"
COLUMNS = ("ranks", "rows", "columns", "oversubscribed", "iterations", "reads", "collectives", "reads_per_step",
           "collectives_per_step", "seconds", "efficiency")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("strong", "weak"))
    parser.add_argument("--rows", type=int, required=True, help="rows; weak: for each rank")
    parser.add_argument("--cols", type=int, required=True)
    parser.add_argument("--ranks", required=True, help="numbers of ranks, with commas between them, the smallest first")
    parser.add_argument("--preset", default="practical", help="of attnreg generate")
    parser.add_argument("--method", default="newton-cg")
    parser.add_argument("--repeats", type=int, default=3, help="runs for each; the median of the seconds counts")
    parser.add_argument("--launch", help="what starts the ranks, with {ranks} in it; default: mpirun")
    parser.add_argument("--program", default=os.environ.get("ATTNREG", BUILT if BUILT.exists() else "attnreg"))
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="directory for the results")
    arguments = parser.parse_args()
    arguments.ranks = [int(ranks) for ranks in arguments.ranks.split(",")]
    if arguments.ranks != sorted(set(arguments.ranks)) or arguments.ranks[0] < 1:
        parser.error("--ranks must increase from 1 or more")
    return arguments


def launch(arguments, ranks):
    """The command in front of the program, and whether the ranks share cores."""
    if arguments.launch:
        return shlex.split(arguments.launch.format(ranks=ranks)), False
    cores = len(os.sched_getaffinity(0))
    # An affinity mask that is smaller than the machine leaves the binding to whoever set it.
    if ranks <= cores == os.cpu_count():
        return ["mpirun", "--bind-to", "core", "-n", str(ranks)], False
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)], ranks > cores


def set_environment():
    """One thread a rank unless told otherwise, and what Open MPI wants to hear from root."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if os.geteuid() == 0:
        print("Open MPI does not start programs for root unless told to; told so for this run only.", file=sys.stderr)
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def run(command):
    """stdout of a command that must succeed."""
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}: code {result.returncode}\n{result.stderr}")
    return result.stdout


def save_environment(arguments):
    """What the figures depend on, as far as one can ask."""
    prefixes = ("SLURM_", "PBS_", "OMPI_", "OMP_", "PMIX_", "UCX_", "ATTNREG")
    environment = {
        "command": sys.argv, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(), "load_average": os.getloadavg(), "cores": len(os.sched_getaffinity(0)),
        "lscpu": run(["lscpu"]).splitlines() if shutil.which("lscpu") else None,
        "program": run([arguments.program, "--version"]).splitlines(),
        "mpirun": run(["mpirun", "--version"]).splitlines()[0] if shutil.which("mpirun") else None,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)},
    }
    (arguments.output / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def read_steps(path):
    """Reads of A and collectives after each step of a solve, from its history.csv."""
    with open(path, newline="") as file:
        return [(round(float(line["reads_of_a"]), 6), int(line["collectives"])) for line in csv.DictReader(file)]


def solve(arguments, problem, ranks):
    """One line of the table, and the counts after each step."""
    command, oversubscribed = launch(arguments, ranks)
    directory = arguments.output / f"ranks-{ranks}"
    doctor = run([*command, arguments.program, "doctor", "--json", "--directory", arguments.output])
    directory.mkdir(exist_ok=True)
    (directory / "doctor.json").write_text(doctor)
    seconds = []
    for _ in range(1 if oversubscribed else arguments.repeats):
        run([*command, arguments.program, "solve", problem / "A.npy", problem / "b.npy", "--weights", problem / "w.npy",
             "--method", arguments.method, "--start", "cross-entropy", "--quiet", "--force", "-o", directory])
        summary = json.loads((directory / "run.json").read_text())["summary"]
        seconds.append(summary["seconds"])
    line = {"ranks": ranks, "oversubscribed": int(oversubscribed), "iterations": summary["iterations"],
            "reads": round(summary["reads_of_a"], 6), "collectives": summary["collectives"],
            "seconds": statistics.median(seconds)}
    return line, read_steps(directory / "history.csv")


def efficiency(kind, base, line):
    """Of the cores, from the seconds for one read of A, for rounding may decide whether there is a last step."""
    ratio = (base["seconds"] / base["reads"]) / (line["seconds"] / line["reads"])
    return round(ratio * base["ranks"] / line["ranks"] if kind == "strong" else ratio, 4)


def add_counts_per_step(lines, steps):
    """Over the steps that all runs took; the number of these."""
    common = min(map(len, steps)) - 1
    for line, counts in zip(lines, steps):
        for k, name in enumerate(("reads_per_step", "collectives_per_step")):
            line[name] = round((counts[common][k] - counts[0][k]) / max(common, 1), 6)
    return common


def write_table(arguments, lines):
    with open(arguments.output / "scaling.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print(" ".join(f"{name} {line[name]}" for name in COLUMNS if line[name] != ""))


def main():
    arguments = parse_arguments()
    set_environment()
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_environment(arguments)
    lines, steps = [], []
    for ranks in arguments.ranks:
        rows = arguments.rows * (ranks if arguments.kind == "weak" else 1)
        problem = arguments.output / f"problem-{rows}x{arguments.cols}"
        if not (problem / "meta.json").exists():
            run([*launch(arguments, ranks)[0], arguments.program, "generate", arguments.preset, "--rows", rows,
                 "--cols", arguments.cols, "-o", problem])
        line, counts = solve(arguments, problem, ranks)
        lines.append({"rows": rows, "columns": arguments.cols, **line})
        steps.append(counts)
        lines[-1]["efficiency"] = "" if line["oversubscribed"] else efficiency(arguments.kind, lines[0], line)
    common = add_counts_per_step(lines, steps)
    write_table(arguments, lines)
    if arguments.kind == "strong":
        same = len({tuple(counts[:common + 1]) for counts in steps}) == 1
        print(f"reads and collectives after each of the {common} steps that all took: "
              + ("the same on any number of ranks" if same else "they differ"))
    print(arguments.output / "scaling.csv")


if __name__ == "__main__":
    main()
