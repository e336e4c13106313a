"""What is seen in a terminal of 80 columns: all commands of README and docs, and all pages of help, through a pty."""

import fcntl
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

import numpy as np

from command_line import MPIRUN, PROGRAM, SOURCE_DIR, TIMEOUT_SECONDS, CommandLineTest, run, softmax

COLUMNS = 80
COMMANDS = ("solve", "attention", "evaluate", "predict", "scores", "sample", "sparsify", "apply", "private", "experiment",
            "inspect", "check", "convert", "generate", "doctor", "jobscript", "plan", "status", "watch", "report", "resume")


def in_terminal(command, directory, columns=COLUMNS, environment=None, until=None):
    """Exit code and all that the command writes to a terminal of so many columns. Once it has written what matches
    `until`, it is told to stop."""
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    variables |= {"OMPI_MCA_ess_singleton_isolated": "1", "ATTNREG_WATCHDOG": "0"} | (environment or {})
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                               env=variables, start_new_session=True)
    os.close(slave)
    written, end = b"", time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.5)[0]:
            continue
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # nobody has the other end any more
            break
        if not part:
            break
        written += part
        if until and re.search(until, written.decode(errors="replace")):
            process.send_signal(signal.SIGTERM)
            until = None
    os.close(master)
    if time.monotonic() >= end:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(timeout=TIMEOUT_SECONDS), written.decode()


def widest(text):
    """The longest line; what a carriage return takes back is a line of its own."""
    return max(re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)), key=len)


def commands_of(path):
    """The command lines of a page of documentation that begin with attnreg or mpirun, without their comments."""
    return commands_in(path.read_text())


def commands_in(text):
    found = []
    for line in text.splitlines():
        line = line.strip().split(" #")[0].strip()
        if re.match(r"(mpirun -n \d+ )?attnreg [a-z]+ ", line + " ") and not line.startswith("attnreg COMMAND"):
            found.append(line)
    return found


class TerminalTest(CommandLineTest):
    def write_files(self):
        """Everything that the documentation reads."""
        generator = np.random.default_rng(1)
        save = lambda name, array: np.save(self.directory / name, array)
        self.write_problem(200, 5)
        save("w.npy", np.full(200, 1e-4))
        save("X.npy", generator.standard_normal((8, 400)))
        for name in ("Q", "K", "V"):
            save(f"{name}.npy", generator.standard_normal((12, 4)))
        save("T.npy", generator.standard_normal((7, 8, 9)))
        save("points.npy", generator.standard_normal((12, 8)))
        save("labels.npy", np.resize([1.0, -1.0], 12))
        for name, shape in (("nodes", (30, 4)), ("W0", (4, 3)), ("W1", (3, 2))):
            save(f"{name}.npy", generator.standard_normal(shape))
        np.savez(self.directory / "G.npz", data=np.ones(30), indices=np.arange(30)[::-1], indptr=np.arange(31),
                 shape=np.array((30, 30)), format=np.array(b"csr"))
        d = 10
        head = 0.3 * generator.standard_normal((d, 2)) @ generator.standard_normal((2, d))
        Y = generator.standard_normal((d, 3))
        for directory in ("", "data/head-l2h5/train/", "data/head-l2h5/test/"):
            (self.directory / directory).mkdir(parents=True, exist_ok=True)
            for k in range(8):
                tokens = generator.standard_normal((24, d))
                F = np.apply_along_axis(softmax, 1, tokens @ head @ tokens.T)
                for name, array in (("tokens", tokens), ("F", F), ("out", F @ tokens @ Y)):
                    save(f"{directory}{name}{k}.npy", array)
            for name, last, count in (("list", 0, 8), ("three", 0, 3), ("layer", 1, 8)):
                lines = (f"tokens{k}.npy tokens{k}.npy " + (f"values=tokens{k}.npy target=out{k}.npy" if last else
                                                           f"F{k}.npy") for k in range(count))
                (self.directory / directory / f"{name}.txt").write_text("\n".join(lines) + "\n")
        try:
            import scipy.sparse
            scipy.sparse.save_npz(self.directory / "X.npz", scipy.sparse.csr_matrix(np.load(self.directory / "X.npy")))
        except ImportError:  # the sparse X as the program reads it
            X = np.load(self.directory / "X.npy")
            np.savez(self.directory / "X.npz", data=X.ravel(), indices=np.tile(np.arange(X.shape[1]), X.shape[0]),
                     indptr=np.arange(0, X.size + 1, X.shape[1]), shape=np.array(X.shape), format=np.array(b"csr"))

    def test_no_line_of_the_documentation_wraps(self):
        self.write_files()
        pages = [SOURCE_DIR / "README.md", *sorted((SOURCE_DIR / "docs").glob("*.md"))]
        pages.remove(SOURCE_DIR / "docs" / "data.md")  # below
        lines = [line for page in pages for line in commands_of(page)]
        self.assertGreater(len(lines), 25)
        for line in lines:
            if line == "attnreg resume run":  # goes on with a run that was cut off
                self.interrupt_run()
            self.does_not_wrap(line, self.directory)

    def test_no_line_of_the_page_on_data_wraps(self):
        sections = [text for text in (SOURCE_DIR / "docs" / "data.md").read_text().split("\n## ") if "```python" in text]
        self.assertGreater(len(sections), 3)
        for number, text in enumerate(sections):  # each makes the files that it reads
            directory = self.directory / str(number)
            directory.mkdir()
            for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                subprocess.run([sys.executable, "-c", block], cwd=directory, check=True)
            for line in commands_in(text):
                self.does_not_wrap(line, directory)

    def does_not_wrap(self, line, directory):
        words = [{"attnreg": PROGRAM, "mpirun": MPIRUN}.get(word, word) for word in shlex.split(line)]
        if "-o" in words:  # some lines write to the same place as others
            output = directory / words[words.index("-o") + 1]
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
        with self.subTest(command=line):
            code, text = in_terminal(words, directory)
            self.assertIn(code, (0, 4), text)
            self.assertLessEqual(len(widest(text)), COLUMNS, text)

    def interrupt_run(self):
        result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "--max-iterations", 1, "--start",
                     "zero", "--time-limit", "1e-9", "--force", "-o", self.directory / "run", "-q")
        self.assert_code(4, result)

    def test_no_page_of_help_wraps(self):
        for words in ([], *([command] for command in COMMANDS)):
            for option in ("--help", "--help-all") if words else ("--help",):
                with self.subTest(words=words, option=option):
                    code, text = in_terminal([PROGRAM, *words, option], self.directory)
                    self.assertEqual(0, code, text)
                    self.assertLessEqual(len(widest(text)), COLUMNS, text)

    def test_pages_have_the_width_of_the_terminal(self):
        for columns in (40, 60, 132):
            _, text = in_terminal([PROGRAM, "solve", "--help"], self.directory, columns)
            self.assertLessEqual(len(widest(text)), columns)
            self.assertGreater(len(widest(text)), 0.75 * columns)
        _, text = in_terminal([PROGRAM, "solve", "--help"], self.directory, 132, {"COLUMNS": "50"})
        self.assertLessEqual(len(widest(text)), 50)

    def test_options_for_experts_have_a_page_of_their_own(self):
        short, whole = (run("solve", option).stdout for option in ("--help", "--help-all"))
        for name in ("--block-size", "--grid", "--nonzeros", "--jl-columns", "--sketch-rows", "--delta", "--radius",
                     "--sampling-error", "--no-low-rank", "--rtol-of"):
            pattern = re.compile(rf"^ +{name}( |$)", re.MULTILINE)
            self.assertRegex(whole, pattern)
            self.assertNotRegex(short, pattern)
        for name in ("--weight", "--method", "--output", "--seed"):
            self.assertRegex(short, re.compile(rf"^ .*{name} ", re.MULTILINE))
        self.assertIn("--help-all", short)

    def steps(self, *options):
        """The step lines, as (name, iteration)."""
        result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "--method", "newton-cg", *options)
        lines = [re.match(r"(.{15}) *(\d+) +[-\d.]+e[-+]\d+ ", line) for line in result.stderr.splitlines()]
        return [(line[1].strip(), int(line[2])) for line in lines if line], result

    def test_every_step_line_has_a_name(self):
        self.write_problem(200, 4)
        for options, names in ((("--start", "zero"), {"zero"}),
                               (("--start", "cross-entropy", "--starts", "2"), {"start", "cross-entropy", "random 1",
                                                                               "random 2"}),
                               (("--weights-path", "1e-2:1e-4:3", "--start", "zero"),
                                {"w 1.00e-02", "w 1.00e-03", "w 1.00e-04"})):
            for verbose in ((), ("-v",)):
                with self.subTest(options=options, verbose=verbose):
                    steps, result = self.steps(*options, *verbose)
                    self.assertEqual(names, {name for name, _ in steps}, repr(result))
                    self.assertEqual(bool(verbose), "radius" in result.stderr)
                    self.assertLessEqual(max(len(line) for line in result.stderr.splitlines() if "e-" in line), COLUMNS)

    def test_every_step_line_of_several_targets_has_a_name(self):
        A, _, _ = self.write_problem(80, 3)
        B = np.stack([softmax(A @ np.full(3, s)) for s in (0.2, 0.5)], axis=1)
        np.save(self.directory / "B.npy", B)
        result = run("solve", self.directory / "A.npy", "--targets", self.directory / "B.npy")
        names = {line[:15].strip() for line in result.stderr.splitlines() if line.startswith("target")}
        self.assertEqual({"target 0", "target 1"}, names, repr(result))

    def test_long_lists_are_folded(self):
        self.write_problem(60, 3)
        arguments = ("solve", self.directory / "A.npy", self.directory / "b.npy", "--loss", "cosh", "--starts", "12",
                     "--weight", "1e-3", "-q")
        folded, whole = run(*arguments), run(*arguments[:-1], "-v")
        for name in (f"random {k}" for k in range(1, 13)):
            self.assertIn(name, whole.stdout)
        self.assertIn(" more", folded.stdout)
        self.assertLess(folded.stdout.count("random "), whole.stdout.count("random "))


if __name__ == "__main__":
    unittest.main()
