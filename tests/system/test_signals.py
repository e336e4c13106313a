"""Signals, full disks and two runs in one directory: the state that a run leaves is true, and its x is usable.

Most signals are sent by the program to itself, at a place that a hook names, so that nothing depends on time. Those
from outside go to runs that would last for minutes."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import unittest.mock

import numpy as np

from command_line import MPIRUN, PROGRAM, TIMEOUT_SECONDS, CommandLineTest, read_json, read_status, run

SIGNALS = ("INT", "TERM", "HUP", "USR2")
DONE = {"x.npy", "run.json", "history.csv", "timing.json", "status.json"}
FILES = DONE | {"checkpoint"}


def wait_until(condition, what):
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not after {TIMEOUT_SECONDS} s")
        time.sleep(0.01)


class Background:
    """A run that goes on; `send` sends signals to one of its ranks, `end` waits for it. patience: seconds after which
    mpirun passes on a TERM, and after as many more kills the ranks; it waits for as long when a rank has failed."""

    def __init__(self, *arguments, ranks=0, environment=None, patience=0):
        self.resources = contextlib.ExitStack()
        variables = os.environ | (environment or {})
        command = [MPIRUN, "--mca", "odls_base_sigkill_timeout", str(patience), "-n", str(ranks)] if ranks else []
        if not ranks:
            sessions = self.resources.enter_context(tempfile.TemporaryDirectory(prefix="attnreg-mpi-"))
            variables |= {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_orte_tmpdir_base": sessions}
        self.process = subprocess.Popen([*command, PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=variables, text=True,
                                        start_new_session=True)
        self.ranks = ranks

    def pids(self):
        """Of the ranks, in the order of their start."""
        if not self.ranks:
            return [self.process.pid]
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(int(pid) for pid in children if self.is_ours(pid))

    @staticmethod
    def is_ours(pid):
        with contextlib.suppress(OSError):
            return os.path.samefile(f"/proc/{pid}/exe", PROGRAM)
        return False

    def send(self, number, rank=0):
        os.kill(self.pids()[rank], number)

    def end(self):
        try:
            stdout, stderr = self.process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end after {TIMEOUT_SECONDS} s: {self.process.args}") from None
        self.resources.close()
        return self.process.returncode, stdout, stderr

    def kill(self):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        self.resources.close()


class SignalTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem()
        self.A, self.b, self.out = (self.directory / name for name in ("A.npy", "b.npy", "run"))

    def solve(self, *options, fault=None, ranks=0):
        return run("solve", self.A, self.b, "-o", self.out, *options, ranks=ranks,
                   environment={"ATTNREG_FAULT": fault} if fault else None)

    def assert_stopped(self, result, files=FILES):
        """One line on stderr about it, the code, the state, and these files."""
        self.assert_code(75, result)
        self.assertEqual([], result.messages())
        self.assertEqual(1, result.stderr.count("stopped by"), repr(result))
        self.assertEqual(("stopped", 75), read_status(self.out))
        self.assertEqual(set(files), set(os.listdir(self.out)))

    def remove_run(self):
        shutil.rmtree(self.out)

    def test_solve_ends_with_the_best_x(self):
        """Any rank may get the signal; with several starts, and with a certificate to come."""
        for ranks, rank in ((0, 0), (3, 0), (3, 2)):
            for name in SIGNALS if rank == 2 else ("TERM",):
                with self.subTest(signal=name, ranks=ranks, rank=rank):
                    result = self.solve("--starts", 1000, "--certificate", "full", ranks=ranks,
                                        fault=f"{rank}:in-iteration:{name}")
                    self.assert_stopped(result)
                    self.assertTrue(result.stdout.startswith("NOT finished, stopped by a signal"), repr(result))
                    summary = read_json(self.out / "run.json")["summary"]
                    self.assertEqual("stopped", summary["termination"])
                    self.assertTrue(np.isfinite(np.load(self.out / "x.npy")).all())
                    self.remove_run()

    def test_paths_and_targets(self):
        result = self.solve("--weights-path", "1e-2:1e-4:3", ranks=3, fault="1:in-iteration:TERM")
        self.assert_stopped(result, FILES | {"x_path.npy", "path.csv"})
        self.assertIn("NOT solved, stopped", result.stdout)
        self.remove_run()
        np.save(self.directory / "B.npy", np.load(self.b)[:, None] * np.ones(5))
        result = run("solve", self.A, "--targets", self.directory / "B.npy", "-o", self.out, ranks=3,
                     environment={"ATTNREG_FAULT": "1:in-iteration:TERM"})
        self.assert_stopped(result, {"X.npy", "targets.csv", "run.json", "history.csv", "timing.json", "status.json",
                                     "checkpoint"})

    def test_loading_ends_without_a_result(self):
        for ranks, rank in ((0, 0), (3, 2)):
            for site in ("start", "after-load"):
                with self.subTest(site=site, ranks=ranks):
                    result = self.solve(ranks=ranks, fault=f"{rank}:{site}:TERM")
                    if site == "start":  # before there was a directory, or in it
                        self.assert_code(4, result)
                        self.assertIn("stopped by", result.stderr)
                        self.assertEqual("", result.stdout)
                    else:  # the last message of loading, or the first of the solve
                        self.assertEqual(("stopped", 75), read_status(self.out))
                    if self.out.exists():
                        self.assertFalse([name for name in os.listdir(self.out) if ".tmp." in name or name == "lock"])
                        self.remove_run()

    def test_too_late_to_stop(self):
        result = self.solve(ranks=3, fault="1:before-write:TERM")
        self.assert_code(0, result)
        self.assertEqual(("done", 0), read_status(self.out))

    def test_usr1_lets_the_run_go_on(self):
        for ranks in (0, 3):
            self.assert_code(0, self.solve("--force", ranks=ranks, fault="0:in-iteration:USR1"))
            self.assertEqual(("done", 0), read_status(self.out))

    def test_second_interrupt_ends_at_once(self):
        """Of a rank that cannot end, as it waits for one that sleeps."""
        work = Background("solve", self.A, self.b, "--starts", 10**5, "-q", "-o", self.out, ranks=2)
        wait_until(lambda: (self.out / "history.csv").exists(), "the first iteration")
        pid = read_json(self.out / "status.json")["pid"]
        other = next(number for number in work.pids() if number != pid)
        os.kill(other, signal.SIGSTOP)
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: not self.is_pending(pid, signal.SIGINT), "the first one was handled")
        self.assertEqual("running", read_status(self.out)[0])
        os.kill(pid, signal.SIGINT)
        code, _, stderr = work.end()
        self.assertEqual(128 + signal.SIGINT, code, stderr)

    @staticmethod
    def is_pending(pid, number):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
        return any(mask >> (number - 1) & 1 for mask in pending)

    def test_attention(self):
        generator = np.random.default_rng(3)
        for name, shape in (("Q", (40, 4)), ("K", (24, 3)), ("F", (40, 24))):
            np.save(self.directory / f"{name}.npy", generator.random(shape))
        F = np.load(self.directory / "F.npy")
        np.save(self.directory / "F.npy", F / F.sum(axis=1, keepdims=True))
        data = ["attention", *(word for name, option in (("Q", "queries"), ("K", "keys"), ("F", "target"))
                               for word in (f"--{option}", self.directory / f"{name}.npy"))]
        for ranks, rank in ((0, 0), (3, 2)):
            with self.subTest(ranks=ranks):
                result = run(*data, "--starts", 100, "--certificate", "full", "-o", self.out, ranks=ranks,
                             environment={"ATTNREG_FAULT": f"{rank}:in-iteration:TERM"})
                self.assert_stopped(result, {"X.npy", "run.json", "history.csv", "timing.json", "status.json", "checkpoint"})
                self.remove_run()

    def test_signals_from_outside(self):
        """To one rank, and to mpirun, which passes them on."""
        for ranks, rank, number in ((0, 0, signal.SIGTERM), (3, 2, signal.SIGHUP), (3, None, signal.SIGUSR2),
                                    (3, None, signal.SIGTERM)):
            with self.subTest(ranks=ranks, rank=rank, number=number):
                work = Background("solve", self.A, self.b, "--starts", 10**5, "-q", "-o", self.out, ranks=ranks,
                                  patience=2 if rank is None and number == signal.SIGTERM else 0)
                wait_until(lambda: (self.out / "history.csv").exists(), "the first iteration")
                work.process.send_signal(number) if rank is None else work.send(number, rank)
                code, stdout, stderr = work.end()
                self.assertEqual(1 if rank is None and number == signal.SIGTERM else 75, code, stderr)  # 1: of mpirun
                self.assertEqual(("stopped", 75), read_status(self.out))
                self.assertEqual(FILES, set(os.listdir(self.out)))
                self.remove_run()

    def test_commands_without_a_partial_result(self):
        """In the middle of their work, which would last for a minute or more: nothing is left."""
        generator = np.random.default_rng(4)
        Q, X, out = (self.directory / name for name in ("Q.npy", "X.npy", "out"))
        np.save(Q, generator.standard_normal((40000, 32)))
        np.save(X, generator.standard_normal((150, 8000)))
        commands = (["apply", Q, Q, Q], ["sparsify", X, "--method", "bss", "--metrics", "none"],
                    ["sparsify", "--tokens", "--queries", Q, "--keys", Q, "--values", Q], ["scores", X, "--exact"])
        for command in commands[:3]:
            for ranks in (0, 3):
                with self.subTest(command=command[0], ranks=ranks):
                    work = Background(*command, "-o", out, "--threads", 1, ranks=ranks)
                    time.sleep(1)  # somewhere in it; where does not matter
                    work.send(signal.SIGTERM, ranks - 1 if ranks else 0)
                    code, stdout, stderr = work.end()
                    self.assertEqual(4, code, stderr)
                    self.assertEqual("", stdout)
                    self.assertIn("before there was a result", stderr)
                    self.assertFalse(out.exists() and (out.is_file() or os.listdir(out)))
        small = self.directory / "small.npy"
        np.save(small, generator.standard_normal((50, 4)))
        for command in (commands[3], ["experiment", "cycle-rank"], ["generate", "easy", "--rows", 1000, "--cols", 3],
                        ["experiment", "gnn-features", "--nodes", 2000, "--repeats", 1000],
                        ["apply", small, small, small, "--kernel", "polynomial", "--sketch", 100]):
            with self.subTest(command=command[0]):
                result = run(*command, "-o", out, ranks=3, environment={"ATTNREG_FAULT": "1:start:TERM"})
                self.assert_code(4, result)
                self.assertEqual("", result.stdout)
                self.assertFalse(out.exists() and (out.is_file() or os.listdir(out)))


class StatusTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem()
        self.A, self.b, self.out = (self.directory / name for name in ("A.npy", "b.npy", "run"))

    def status(self, *options, ranks=0):
        result = run("status", self.out, *options, ranks=ranks)
        self.assertEqual("", result.stderr)
        return result.code, result.stdout.split(",")[0].strip()

    def start(self, *options, ranks=0, environment=None):
        work = Background("solve", self.A, self.b, "--starts", 10**5, "-q", "-o", self.out, *options, ranks=ranks,
                          environment=environment)
        wait_until(lambda: (self.out / "history.csv").exists(), "the first iteration")
        return work

    def test_done_and_failed(self):
        self.assertEqual(3, run("status", self.out).code)
        solve = ["solve", self.A, self.b, "-o", self.out]
        self.assert_code(0, run(*solve))
        for ranks in (0, 3):
            self.assertEqual((0, "done"), self.status(ranks=ranks))
        self.assert_code(4, run(*solve, "--max-iterations", 1, "--force"))
        self.assertEqual((4, "done"), self.status())
        self.assert_code(3, run("solve", self.A, self.directory / "none.npy", "-o", self.out, "--force"))
        self.assertEqual((3, "failed"), self.status())
        self.assert_code(75, run(*solve, "--force", environment={"ATTNREG_FAULT": "0:in-iteration:TERM"}))
        self.assertEqual((75, "stopped"), self.status())
        found = json.loads(run("status", self.out, "--json").stdout)
        self.assertEqual("stopped", found["state"])
        self.assertEqual(socket.gethostname(), found["host"])

    @unittest.mock.patch.dict(os.environ)
    def test_threads_wait_passively_on_every_rank(self):
        """As docs/program.md says: where the user says nothing of it. Most other tests do."""
        for ranks, given in ((0, None), (2, None), (0, "GOMP_SPINCOUNT=9")):
            with self.subTest(ranks=ranks, given=given):
                os.environ.pop("OMP_WAIT_POLICY", None)
                os.environ.update([given.split("=")] if given else [])
                work = self.start("--force", ranks=ranks)
                try:
                    pids = work.pids()
                    self.assertEqual(max(ranks, 1), len(pids))
                    if "libasan" in pathlib.Path(f"/proc/{pids[0]}/maps").read_text():
                        self.skipTest("with AddressSanitizer the program does not start anew")
                    for pid in pids:
                        variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                        self.assertEqual(given is None, "OMP_WAIT_POLICY=passive" in variables)
                finally:
                    work.kill()
                    shutil.rmtree(self.out)

    def test_running_then_stale(self):
        for ranks in (0, 3):
            work = self.start("--force", ranks=ranks)
            self.assertEqual((10, "running"), self.status())
            owner = read_json(self.out / "status.json")
            self.assertIn(owner["pid"], work.pids())
            second = run("solve", self.A, self.b, "-o", self.out, "--force")
            self.assert_error(second, 6, "in use", str(owner["pid"]), socket.gethostname())
            self.assertEqual((10, "running"), self.status())
            work.kill()
            wait_until(lambda: not os.path.exists(f"/proc/{owner['pid']}"), "the process is gone")
            self.assertEqual((11, "stale"), self.status())
            self.assert_code(0, run("solve", self.A, self.b, "-o", self.out))  # takes the lock over; nothing was done
            self.assertEqual(DONE, set(os.listdir(self.out)))
            shutil.rmtree(self.out)

    @unittest.skipUnless(shutil.which("cc"), "needs a C compiler")
    def test_file_system_without_locks(self):
        """The file is the lock: of a process that is gone from this host it is taken over, of another host never."""
        source, library = self.directory / "flock.c", self.directory / "flock.so"
        source.write_text("#include <errno.h>\nint flock(int f, int o) { (void)f; (void)o; errno = ENOLCK; return -1; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        without = {"LD_PRELOAD": str(library)}
        solve = ["solve", self.A, self.b, "-o", self.out, "--force"]
        work = self.start(environment=without)
        self.assert_error(run(*solve, environment=without), 6, "in use", str(work.process.pid), "remove", "lock")
        work.kill()
        self.assertIn("lock", os.listdir(self.out))
        self.assert_code(0, run(*solve, environment=without))
        self.assertEqual(DONE, set(os.listdir(self.out)))
        (self.out / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "process_start": 1, "started": "now"}))
        self.assert_error(run(*solve, environment=without), 6, "in use", "elsewhere", "remove")
        self.assert_code(0, run(*solve))  # where locks are, that file alone is none

    def test_process_numbers_are_used_again(self):
        """This process has the number, and started at another time."""
        self.out.mkdir()
        status = {"state": "running", "host": socket.gethostname(), "pid": os.getpid(), "process_start": 1,
                  "started": "2024-01-01T00:00:00Z", "exit_code": None}
        (self.out / "status.json").write_text(json.dumps(status))
        self.assertEqual((11, "stale"), self.status())

    def test_another_host(self):
        self.out.mkdir()
        path = self.out / "status.json"
        path.write_text(json.dumps({"state": "running", "host": "elsewhere", "pid": 1, "process_start": 1,
                                    "started": "2024-01-01T00:00:00Z", "exit_code": None}))
        self.assertEqual((10, "running"), self.status())
        os.utime(path, (time.time() - 700, time.time() - 700))
        self.assertEqual((11, "stale"), self.status())
        self.assertEqual((10, "running"), self.status("--stale-after", 1000))

    def test_not_a_status(self):
        self.out.mkdir()
        (self.out / "status.json").write_text("[1]")
        self.assert_error(run("status", self.out), 3, "status.json", "state")

    def test_killed_run_does_not_mix_with_an_old_one(self):
        """Killed before it has a result, --force leaves all of the old run, and no file that looks like one."""
        self.assert_code(0, run("solve", self.A, self.b, "-o", self.out, "--write-fitted"))
        before = {path.name: path.read_bytes() for path in self.out.iterdir()}
        for site in ("after-load", "in-iteration", "before-write"):
            run("solve", self.A, self.b, "-o", self.out, "--force", environment={"ATTNREG_FAULT": f"0:{site}:KILL"})
            names = set(os.listdir(self.out)) - {"lock", "history.partial.csv", "checkpoint"}
            self.assertEqual(set(before), names)
            self.assertEqual(site == "before-write", (self.out / "history.partial.csv").exists())
            for name in names - {"status.json"}:
                self.assertEqual(before[name], (self.out / name).read_bytes())
            self.assertEqual((11, "stale"), self.status())
        self.assert_code(0, run("solve", self.A, self.b, "-o", self.out, "--force"))
        self.assertEqual(DONE, set(os.listdir(self.out)))
        self.assertNotEqual(before["history.csv"], (self.out / "history.csv").read_bytes())  # its seconds


if __name__ == "__main__":
    unittest.main()
