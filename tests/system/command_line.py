"""Runs the program, with and without mpirun, for the tests of the command line.

The environment names the program (ATTNREG_PROGRAM), mpirun (ATTNREG_MPIRUN) and the sources (ATTNREG_SOURCE_DIR).
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

import numpy as np

import schemas

os.environ.setdefault("COLUMNS", "1000")  # what is looked for stands in one line

PROGRAM = os.environ["ATTNREG_PROGRAM"]
MPIRUN = os.environ.get("ATTNREG_MPIRUN", "mpirun")
SOURCE_DIR = pathlib.Path(os.environ.get("ATTNREG_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
SCHEMAS = SOURCE_DIR / "docs" / "schemas"
WORDS = SOURCE_DIR / "examples" / "data" / "words-4096"

# A hang must end the test, not the patience of the user; runs take a second or two where the machine is idle.
TIMEOUT_SECONDS = float(os.environ.get("ATTNREG_TEST_TIMEOUT", "120"))

measures_memory = unittest.skipIf(os.environ.get("ATTNREG_SANITIZE"),
                                  "a sanitizer's own memory is in each peak, and fits under no limit")


class Result:
    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr

    def messages(self):
        """The lines that the program itself wrote as errors."""
        return [line for line in self.stderr.splitlines() if line.startswith("attnreg: error")]

    def __repr__(self):
        return f"code {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def result_directory(words):
    """Where a command line has its results written, as far as it says so."""
    for word, after in zip(words, [*words[1:], ""]):
        if word in ("-o", "--output"):
            return after
        if word.startswith("--output="):
            return word[9:]
    return words[1] if words[:1] == ["resume"] and len(words) > 1 else ""


def require_faults():
    """Skips the test with a program that cannot play faults."""
    if os.environ.get("ATTNREG_TEST_FAULTS") != "1":
        raise unittest.SkipTest("the program is built without ATTNREG_FAULT_INJECTION")


def run(*arguments, ranks=0, mpirun=None, environment=None, preexec=None, piped=None):
    """Runs attnreg on `ranks` ranks. One rank, 0 or 1, is run without mpirun, whose start takes longer than the rank's,
    unless `mpirun` says otherwise. Kills it, and all it started, when the time is over. piped: bytes for its standard
    input.

    All JSON that it writes must be as docs/schemas says: on stdout with --json, and in the directory of -o. A test that
    plays a fault is skipped with a program that cannot.
    """
    if "ATTNREG_FAULT" in (environment or {}):
        require_faults()
    # Open MPI waits for 2 s with a job that failed, between its signals, unless it is told not to. Without mpirun it
    # starts a daemon that only a program which spawns others needs, at the price of another run. Programs without one
    # share a directory, which the first of them to end removes while another starts: each gets one of its own.
    under_mpirun = ranks > 1 if mpirun is None else mpirun
    command = [MPIRUN, "--mca", "odls_base_sigkill_timeout", "0", "-n", str(ranks)] if under_mpirun else []
    words = [str(argument) for argument in arguments]
    command += [PROGRAM, *words]
    directory = result_directory(words)
    before = schemas.versions(directory)
    with contextlib.ExitStack() as resources:
        variables = dict(os.environ)
        if not under_mpirun:
            sessions = resources.enter_context(tempfile.TemporaryDirectory(prefix="attnreg-mpi-"))
            variables |= {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_orte_tmpdir_base": sessions}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL if piped is None else subprocess.PIPE,
                                   env=variables | (environment or {}), start_new_session=True, preexec_fn=preexec)
        try:
            stdout, stderr = process.communicate(piped, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise AssertionError(f"no end after {TIMEOUT_SECONDS} s: {' '.join(command)}") from None
    result = Result(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if "--json" in words and result.stdout and not {"-h", "--help", "--help-all"} & set(words):
        schemas.require(SCHEMAS, schemas.parse(result.stdout))
    for name, version in schemas.versions(directory).items():
        if version != before.get(name):
            read_json(pathlib.Path(directory) / name)
    return result


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def read_json(path):
    """A document that the program wrote, as its schema says."""
    document = schemas.parse(pathlib.Path(path).read_text())
    schemas.require(SCHEMAS, document)
    return document


def read_status(directory):
    """The state and the exit code in status.json."""
    status = read_json(pathlib.Path(directory) / "status.json")
    return status["state"], status["exit_code"]


def read_history(path):
    return np.genfromtxt(path, delimiter=",", names=True, ndmin=1)


class CommandLineTest(unittest.TestCase):
    """A directory of its own for every test, and a small problem to put into it."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="attnreg-test-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def write_problem(self, rows=57, columns=3, seed=1):
        """A.npy, b.npy and x.npy; returns the arrays."""
        generator = np.random.default_rng(seed)
        A = generator.standard_normal((rows, columns))
        b = softmax(A @ generator.standard_normal(columns))
        x = 0.3 * generator.standard_normal(columns)
        for name, array in (("A", A), ("b", b), ("x", x)):
            np.save(self.directory / f"{name}.npy", array)
        return A, b, x

    def assert_code(self, code, result):
        self.assertEqual(code, result.code, repr(result))

    def assert_error(self, result, code, *texts):
        """The code, one message that contains all texts, and no result."""
        self.assert_code(code, result)
        self.assertEqual(1, len(result.messages()), repr(result))
        for text in texts:
            self.assertIn(text, result.messages()[0])
        self.assertEqual("", result.stdout)


class ErrorTest(CommandLineTest):
    """A small problem, and commands that must fail alike on one rank and on three."""

    def setUp(self):
        super().setUp()
        self.array, self.target, _ = self.write_problem()
        self.A, self.b, self.out = (self.directory / name for name in ("A.npy", "b.npy", "run"))

    def fails(self, code, *texts, arguments, **options):
        for ranks in (1, 3):
            with self.subTest(arguments=[str(argument) for argument in arguments], ranks=ranks):
                self.assert_error(run(*arguments, ranks=ranks, **options), code, *texts)
