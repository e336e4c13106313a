"""A job that stands still ends by itself, and says who does what."""

import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest

import numpy as np

from command_line import MPIRUN, PROGRAM, ErrorTest, run


def ranks_of(process):
    """Process numbers of the program's ranks below mpirun, by rank."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or os.readlink(entry / "exe") != os.path.realpath(PROGRAM):
                continue
            if os.getsid(int(entry.name)) != process.pid:
                continue
            variables = dict(item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item)
            found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
        except (OSError, KeyError):
            continue
    return found


class WatchdogTest(ErrorTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(1)
        A = generator.standard_normal((60_000, 40))
        np.save(self.A, A)
        b = generator.random(60_000)
        np.save(self.b, b / b.sum())

    def stopped(self, victim, ranks):
        """Stops one rank of a solve that has begun; returns the code and stderr of the job."""
        command = [MPIRUN, "--mca", "odls_base_sigkill_timeout", "0", "-n", str(ranks), PROGRAM, "solve", str(self.A),
                   str(self.b), "--rtol", "1e-300", "--max-iterations", "1000000000", "--starts", "100000",
                   "--watchdog", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        guard = threading.Timer(60, lambda: os.killpg(process.pid, signal.SIGKILL))
        guard.start()
        try:
            lines = []
            for line in process.stderr:  # until the first step is told
                lines.append(line.decode(errors="replace"))
                if len(lines) > 2:
                    break
            os.kill(ranks_of(process)[victim], signal.SIGSTOP)
            lines += [line.decode(errors="replace") for line in process.stderr]
            return process.wait(), "".join(lines)
        finally:
            guard.cancel()
            process.stderr.close()

    def test_a_stopped_rank_is_named(self):
        for victim, ranks in ((1, 2), (0, 3)):
            with self.subTest(victim=victim, ranks=ranks):
                code, stderr = self.stopped(victim, ranks)
                self.assertEqual(9, code, stderr)
                self.assertEqual(1, stderr.count("no progress for 1 s"), stderr)
                for rank in range(ranks):
                    line = next(line for line in stderr.splitlines() if f"watchdog: rank {rank}: " in line)
                    self.assertEqual(rank == victim, "STOPPED" in line, stderr)
                    if rank != victim:
                        self.assertIn("waits for other ranks in a", line)
                        self.assertIn("iteration", line)

    def test_it_does_not_bark_at_those_who_work(self):
        for ranks in (1, 2):
            before = run("solve", self.A, self.b, ranks=ranks, environment={"ATTNREG_WATCHDOG": ""})
            watched = run("solve", self.A, self.b, "--watchdog", 20, ranks=ranks)
            self.assert_code(0, before)
            self.assert_code(0, watched)
            self.assertNotIn("watchdog", watched.stderr)

    def test_values(self):
        self.fails(2, "--watchdog", arguments=("solve", self.A, self.b, "--watchdog", "-1"))
        self.fails(2, "ATTNREG_WATCHDOG", arguments=("solve", self.A, self.b), environment={"ATTNREG_WATCHDOG": "soon"})

    def test_errors_are_still_agreed_on(self):
        self.fails(3, "absent.npy", arguments=("solve", self.directory / "absent.npy", self.b, "--watchdog", "20"))


if __name__ == "__main__":
    unittest.main()
