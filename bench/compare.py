#!/usr/bin/env python3
"""Runs attnreg and the peers on the same problems and cores, makes tables. bench/compare.sh builds all and calls it.

One JSON line per run is appended to OUT.jsonl when the run has ended; what is in the file is not run again. At the end,
and with --table-only, one Markdown table per start goes to stdout. Rules: bench/peers/README.md.
"""
import argparse
import fnmatch
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.join(HERE, "peers")
LMVM = "-tao_lmvm_mat_lmvm_scale_type scalar -tao_lmvm_mat_lmvm_hist_size 20"  # TAO's default needs ten times the steps
CROSS_ENTROPY_START = "cross-entropy-start"
SAME_MINIMUM = 1e-6  # relative difference of L


@dataclass(frozen=True)
class Problem:
    name: str
    preset: str
    rows: int = 0
    columns: int = 0
    weight: float = 0.0  # words

    def generate(self, options, directory):
        if self.preset == "words":
            what = ["--from", options.words, "--weight", repr(self.weight), directory]
        else:
            what = [str(max(1, round(self.rows * options.scale))), str(self.columns), directory]
        subprocess.run([sys.executable, SOURCES + "/generate.py", self.preset, *what], check=True)


PROBLEMS = [
    Problem("easy-200kx200", "easy", 200_000, 200),
    Problem("practical-200kx200", "practical", 200_000, 200),
    Problem("illcond-200kx200", "illcond", 200_000, 200),
    Problem("coherent-200kx200", "coherent", 200_000, 200),
    Problem("practical-1Mx100", "practical", 1_000_000, 100),
    Problem("practical-100kx1000", "practical", 100_000, 1000),
    Problem("illcond-100kx1000", "illcond", 100_000, 1000),
    Problem("sparse-1Mx1000", "sparse", 1_000_000, 1000),
    Problem("words-1e-4", "words", weight=1e-4),
    Problem("words-1e-5", "words", weight=1e-5),
    Problem("words-1e-6", "words", weight=1e-6),
]


@dataclass(frozen=True)
class Method:
    name: str
    program: str  # attnreg, tao, exact_newton, dlib_peer or scipy
    arguments: str = ""
    start: str = ""  # where it always starts; "": where the table says


METHODS = [
    Method("attnreg", "attnreg", start="auto"),
    Method("attnreg-newton-cg", "attnreg", "--method newton-cg"),
    Method("attnreg-newton", "attnreg", "--method newton"),
    Method("gn", "exact_newton", "--hessian gn"),
    Method("gn-trunc", "exact_newton", "--hessian gn-trunc"),
    Method("gn-trunc-0.03", "exact_newton", "--hessian gn-trunc --theta 0.03"),
    Method("exact-newton", "exact_newton", "--hessian exact"),
    Method("tao-nls-dense", "tao", "-tao_type nls -dense_hessian"),
    Method("tao-nls", "tao", "-tao_type nls"),
    Method("tao-ntr", "tao", "-tao_type ntr"),
    Method("tao-bntr", "tao", "-tao_type bntr"),
    Method("tao-bnls", "tao", "-tao_type bnls"),
    Method("tao-lmvm", "tao", "-tao_type lmvm " + LMVM),
    Method("scipy-lbfgsb", "scipy", "--method lbfgs"),
    Method("scipy-trust-ncg", "scipy", "--method trust-ncg"),
    Method("scipy-trust-krylov", "scipy", "--method trust-krylov"),
    Method("scipy-trust-exact", "scipy", "--method trust-exact"),
    Method("dlib-lbfgs", "dlib_peer", "--method lbfgs"),
    Method("dlib-trust-region", "dlib_peer", "--method tr"),
]
START_METHOD = Method(CROSS_ENTROPY_START, "attnreg", "--loss cross-entropy --weight 1e-4 --rtol 1e-2", "zero")


class Runner:
    """Runs programs on the chosen cores."""

    def __init__(self, options):
        self.options = options
        self.environment = dict(os.environ, OMP_WAIT_POLICY="passive")
        if os.getuid() == 0:
            self.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def run(self, command, threads, **environment):
        """(exit code, stdout, stderr); the code is None after a time beyond all patience."""
        cores = self.options.cores
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=dict(self.environment, OMP_NUM_THREADS=str(threads), **environment),
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        try:
            # Loading is not part of the limit, and some peers look at the clock only between long iterations.
            out, err = process.communicate(timeout=3 * self.options.time_limit + 120)
            return process.returncode, out, err
        except BaseException as error:
            process.terminate()  # mpirun ends its ranks
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return None, "", ""
            raise

    def mpirun(self):
        extra = ["--oversubscribe"] if len(self.options.cores) < 2 else []
        return ["mpirun", "--bind-to", "none", *extra, "-n", "2"]

    def read_seconds(self, directory):
        """R: one streaming read of A on both cores."""
        files = ["A.npy"] if os.path.exists(directory + "/A.npy") else ["A_data.npy", "A_indices.npy", "A_indptr.npy"]
        size = sum(os.path.getsize(os.path.join(directory, file)) for file in files)
        code, out, err = self.run([self.options.build + "/stream", str(size)], threads=2)
        if code != 0:
            raise SystemExit("stream: " + err)
        return json.loads(out)["read_seconds"]

    def solve(self, method, directory, start):
        if method.program == "attnreg":
            return self.solve_attnreg(method, directory, start)
        return self.solve_peer(method, directory, start)

    def solve_attnreg(self, method, directory, start):
        matrix = directory + ("/A.npy" if os.path.exists(directory + "/A.npy") else "/A.npz")
        arguments = shlex.split(method.arguments)
        if "--weight" not in arguments:
            arguments += ["--weights", directory + "/w.npy"]
        if "--rtol" not in arguments:
            arguments += ["--rtol", str(self.options.rtol)]
        if start != "auto":
            arguments += ["--start", start]
        with tempfile.TemporaryDirectory() as scratch:
            run = start_directory(directory) if method == START_METHOD else scratch + "/run"
            command = [self.options.attnreg, "solve", matrix, directory + "/b.npy", *arguments, "--time-limit",
                       str(self.options.time_limit), "--quiet", "--force", "-o", run]
            code, _, err = self.run(self.mpirun() + command, threads=1)
            if code not in (0, 4, 5):
                return dict(status="failed: " + last_line(err))
            with open(run + "/run.json") as file:
                summary = json.load(file)["summary"]
        keys = ["value", "gradient_norm", "gradient_reference", "relative_gradient", "iterations", "reads_of_a",
                "seconds"]
        return dict({key: summary[key] for key in keys}, status=summary["termination"].replace("_", " "),
                    method_used=summary["method"], start_used=summary["start"])

    def solve_peer(self, method, directory, start):
        dash = "-" if method.program == "tao" else "--"
        limits = [dash + "rtol", str(self.options.rtol)]
        limits += [dash + ("time_limit" if method.program == "tao" else "time-limit"), str(self.options.time_limit)]
        if start == "cross-entropy":
            limits += [dash + "x0", start_directory(directory) + "/x.npy"]
        limits += shlex.split(method.arguments)
        environment = {}
        threads = 2
        if method.program == "tao":
            command = self.mpirun() + [self.options.build + "/petsc_tao", "-dir", directory]
            threads = 1
        elif method.program == "scipy":
            command = [sys.executable, SOURCES + "/scipy/scipy_peer.py", directory]
            environment["LD_LIBRARY_PATH"] = self.options.build + "/openblas-openmp"
        else:
            command = [os.path.join(self.options.build, method.program), directory]
        code, out, err = self.run(command + limits, threads, **environment)
        if code is None:
            return dict(status="time limit: ended from outside")
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            return dict(status="failed: " + last_line(err))
        return json.loads(lines[-1])


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip() and not set(line.strip()) <= set("-=")]
    own = [line for line in lines if line.startswith(("attnreg:", "petsc_tao:", "exact_newton:", "dlib_peer:"))]
    return (own or lines or ["no message"])[-1][:200]


def start_directory(directory):
    return directory + "/cross-entropy-start"


class Results:
    """The lines of OUT.jsonl that were made with this tolerance and time limit, the last one of each run."""

    def __init__(self, path, options):
        self.path, self.options, self.records = path, options, {}
        if os.path.exists(path):
            with open(path) as file:
                for line in filter(str.strip, file):
                    self.keep(json.loads(line))
        if options.retry_failed and not options.table_only:
            self.records = {key: r for key, r in self.records.items() if not r["status"].startswith("failed")}

    def keep(self, record):
        if record["rtol"] == self.options.rtol and record["time_limit"] == self.options.time_limit:
            self.records[record["data"], record["peer"], record["start"], record["repetition"]] = record

    def append(self, record):
        self.keep(record)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")

    def of(self, data, peer, start):
        return [r for r in self.records.values() if (r["data"], r["peer"], r["start"]) == (data, peer, start)]


def data_name(problem, options):
    if problem.preset == "words" or options.scale == 1:
        return problem.name
    return f"{problem.name}-scale{options.scale:g}"


def measure(runner, results, data, directory, method, start):
    options = runner.options
    done = {r["repetition"] for r in results.of(data, method.name, start)}
    missing = [repetition for repetition in range(options.repeat) if repetition not in done]
    read_seconds = None
    for repetition in missing:
        if any(slow(r, options) for r in results.of(data, method.name, start)):
            return
        if read_seconds is None:
            read_seconds = runner.read_seconds(directory)
        load = os.getloadavg()[0]
        solved = runner.solve(method, directory, start)
        record = dict(solved, data=data, peer=method.name, start=start, repetition=repetition,
                      read_seconds=read_seconds, rtol=options.rtol, time_limit=options.time_limit, load_before=load,
                      finished=time.strftime("%Y-%m-%dT%H:%M:%S"))
        results.append(record)
        print(f"{data:28} {method.name:20} {start:14} {record.get('seconds', float('nan')):9.3f} s  "
              f"{record.get('reads_of_a', float('nan')):8.1f} reads  {reached(record):8.1e}  {record['status'][:60]}",
              file=sys.stderr, flush=True)


def slow(record, options):
    return record.get("seconds") is None or record["seconds"] > options.slow


def reached(record):
    """The smallest |g| / |g(0)|, of a point that was returned or only met."""
    values = [record.get("relative_gradient"), record.get("best_relative_gradient")]
    return min((v for v in values if v is not None), default=float("nan"))


def arrived(record):
    return record.get("relative_gradient") is not None and reached(record) <= record["rtol"]


def starts_of(method, options):
    return [method.start] if method.start else options.start


def run_all(options, problems, methods, results):
    runner = Runner(options)
    for problem in problems:
        data = data_name(problem, options)
        directory = os.path.join(options.data, data)
        if not os.path.exists(directory + "/meta.json"):
            print("generating " + directory, file=sys.stderr, flush=True)
            problem.generate(options, directory)
        if "cross-entropy" in options.start:
            measure(runner, results, data, directory, START_METHOD, "zero")
            if not os.path.exists(start_directory(directory) + "/x.npy"):  # measured before, in another --data
                runner.solve(START_METHOD, directory, "zero")
        for method in methods:
            for start in starts_of(method, options):
                if start == "cross-entropy" and method.program != "attnreg" and not os.path.exists(
                        start_directory(directory) + "/x.npy"):
                    print(f"{data}: no cross-entropy start, {method.name} is left out", file=sys.stderr)
                    continue
                measure(runner, results, data, directory, method, start)


def table(start, options, problems, methods, results):
    lines = [f"### Start: {'x = 0' if start == 'zero' else 'the cross-entropy minimiser'}", "",
             "| problem | method | seconds | / R | reads of A | \\|g\\| / \\|g(0)\\| | L | / attnreg | status |",
             "|---|---|--:|--:|--:|--:|--:|--:|---|"]
    for problem in problems:
        data = data_name(problem, options)
        best = min((r["value"] for r in results.records.values() if r["data"] == data and arrived(r) and
                    r["peer"] != CROSS_ENTROPY_START), default=None)
        own = [r for r in results.of(data, "attnreg", "auto") if arrived(r)]
        own_seconds = statistics.median(r["seconds"] for r in own) if own else None
        if start == "cross-entropy":
            runs = results.of(data, CROSS_ENTROPY_START, "zero")
            lines += [start_row(data, runs)] if runs else []
        for method in methods:
            runs = results.of(data, method.name, method.start or start)
            if runs:
                lines.append(row(data, method.name, runs, best, own_seconds, options))
    return "\n".join(lines)


def seconds_text(runs):
    seconds = [r["seconds"] for r in runs]
    spread = f" [{min(seconds):.3g}..{max(seconds):.3g}]" if len(seconds) > 1 else ""
    return f"{statistics.median(seconds):.3g}{spread}"


def in_reads(runs):
    return f"{statistics.median(r['seconds'] / r['read_seconds'] for r in runs):.0f}"


def start_row(data, runs):
    timed = [r for r in runs if r.get("seconds") is not None]
    if not timed:
        return f"| {data} | *(the start itself)* | | | | | | | {cell(runs[-1]['status'])} |"
    return (f"| {data} | *(the start itself)* | {seconds_text(timed)} | {in_reads(timed)} "
            f"| {timed[-1]['reads_of_a']:.0f} | | | | not part of the peers' seconds, but of attnreg's |")


def row(data, name, runs, best, own_seconds, options):
    good = [r for r in runs if arrived(r)]
    if runs[-1]["status"].startswith("failed"):
        return f"| {data} | {name} | | | | | | | {cell(runs[-1]['status'])} |"
    if good:
        middle = sorted(good, key=lambda r: r["seconds"])[(len(good) - 1) // 2]
        seconds = statistics.median(r["seconds"] for r in good)
        times = [seconds_text(good), in_reads(good)]
        ratio = f"{seconds / own_seconds:.2f}" if own_seconds else ""
        status = [] if len(good) == len(runs) else [f"{len(good)} of {len(runs)} runs"]
        status += [higher_minimum(middle, best)]
    else:
        middle = runs[-1]
        limit = options.time_limit
        r = middle["read_seconds"]
        times = [f"> {limit:g}", f"> {limit / r:.0f}"]
        ratio = f"> {limit / own_seconds:.1f}" if own_seconds else ""
        status = [middle["status"]]
        if middle.get("seconds") is not None:
            status += [f"after {middle['seconds']:.3g} s"]
    reads = f"{middle['reads_of_a']:.0f}" if middle.get("reads_of_a") is not None else ""
    gradient = f"{reached(middle):.1e}" if middle.get("relative_gradient") is not None else ""
    value = f"{middle['value']:.8e}" if middle.get("value") is not None else ""
    cells = [data, name, *times, reads, gradient, value, ratio, cell(", ".join(filter(None, status)))]
    return "| " + " | ".join(cells) + " |"


def higher_minimum(record, best):
    excess = (record["value"] - best) / abs(best)
    return f"another minimum: L is {100 * excess:.3g} % higher" if excess > SAME_MINIMUM else "converged"


def cell(text):
    return text.replace("|", "/").replace("\n", " ")[:120]


def chosen(all_of_them, patterns, what):
    for pattern in patterns:
        if not fnmatch.filter([one.name for one in all_of_them], pattern):
            raise SystemExit(f"no {what} matches {pattern}; there are {', '.join(one.name for one in all_of_them)}")
    return [one for one in all_of_them if any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns)]


def core_list(text):
    return {int(core) for core in text.split(",")}


def parse_options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="problems: " + ", ".join(p.name for p in PROBLEMS) + "\nmethods: " + ", ".join(m.name for m in METHODS))
    parser.add_argument("out", metavar="OUT.jsonl")
    parser.add_argument("--data", required=True, metavar="DIR", help="where the problems are, or are made")
    parser.add_argument("--words", metavar="DIR", help="with A.npy and b.npy of words; without, words is left out")
    parser.add_argument("--problems", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--peers", nargs="+", default=["*"], metavar="PATTERN", help="attnreg's own too")
    parser.add_argument("--start", nargs="+", default=["zero", "cross-entropy"], choices=["zero", "cross-entropy"])
    parser.add_argument("--rtol", type=float, default=1e-10)
    parser.add_argument("--time-limit", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--slow", type=float, default=8, metavar="SECONDS", help="longer runs are not repeated [8]")
    parser.add_argument("--scale", type=float, default=1, help="factor on the rows of the presets, for trials [1]")
    parser.add_argument("--cores", type=core_list, metavar="I,J", help="the two cores to use [the first two]")
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed, as a crash or a bad input")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    parser.add_argument("--attnreg", default=os.path.join(HERE, "../build/release/bin/attnreg"), metavar="PROGRAM")
    parser.add_argument("--build", default=os.path.join(HERE, "../build/peers"), metavar="DIR")
    options = parser.parse_args()
    options.attnreg, options.build = os.path.abspath(options.attnreg), os.path.abspath(options.build)
    if options.cores is None:
        options.cores = set(sorted(os.sched_getaffinity(0))[:2])
    return options


def main():
    options = parse_options()
    problems = chosen(PROBLEMS, options.problems, "problem")
    methods = chosen(METHODS, options.peers, "method")
    if options.words is None:
        # Data of an earlier run will do.
        problems = [p for p in problems if p.preset != "words" or os.path.exists(f"{options.data}/{p.name}/meta.json")]
    results = Results(options.out, options)
    if not options.table_only:
        if os.getloadavg()[0] > 0.5:
            print(f"warning: the load is {os.getloadavg()[0]:.1f}; seconds mean something on an idle machine only",
                  file=sys.stderr)
        try:
            run_all(options, problems, methods, results)
        except KeyboardInterrupt:
            raise SystemExit(f"interrupted; the same command goes on where {options.out} ends")
    print("\n\n".join(table(start, options, problems, methods, results) for start in options.start))


if __name__ == "__main__":
    main()
