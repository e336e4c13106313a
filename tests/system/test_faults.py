"""Output that cannot be written, and bugs on one rank: an end, soon, with the right code and one message."""

import itertools
import os
import resource
import time
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, read_status, run


class OutputTest(ErrorTest):
    def test_below_a_regular_file(self):
        for path in (self.A, self.A / "run", self.A / "deeper" / "run"):
            self.fails(6, "A.npy", arguments=("solve", self.A, self.b, "-o", path))

    def test_found_out_before_the_data_are_read(self):
        self.fails(6, arguments=("solve", self.directory / "absent.npy", self.b, "-o", self.A / "run"))

    def test_history_is_not_a_file(self):
        self.out.mkdir()
        os.mkfifo(self.out / "history.csv")
        for ranks in (1, 3):
            result = run("solve", self.A, self.b, "-o", self.out, "--force", ranks=ranks)
            self.assert_code(6, result)
            self.assertIn("history.csv", result.messages()[0])
            self.assertTrue(result.stdout.startswith("converged"))  # the result is said, and x.npy is there
            self.assertEqual((3,), np.load(self.out / "x.npy").shape)
            self.assertEqual(("failed", 6), read_status(self.out))

    def test_file_size_limit(self):
        rows, limit = 2_000_000, 12_000_000  # f.npy has 16 MB; MPI itself needs files of a few MB
        np.save(self.A, np.linspace(0, 1, rows, dtype="<f4"))
        np.save(self.b, np.full(rows, 1 / rows, dtype="<f4"))
        result = run("solve", self.A, self.b, "-o", self.out, "--write-fitted", "--max-iterations", "1",
                     preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assert_code(6, result)
        self.assertEqual(1, len(result.messages()), repr(result))
        self.assertIn("f.npy", result.messages()[0])
        self.assertIn("Fit of f", result.stdout)
        self.assertEqual({"x.npy", "history.csv", "status.json"}, set(os.listdir(self.out)))

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_full_standard_output(self):
        def redirect():
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

        self.assert_error(run("inspect", self.A, preexec=redirect), 6, "standard output")


class FaultTest(ErrorTest):
    """A bug on one rank ends the whole job, soon, and says which rank."""

    def ends_soon(self, ranks, rank, site):
        with self.subTest(ranks=ranks, rank=rank, site=site):
            before = time.monotonic()
            result = run("solve", self.A, self.b, ranks=ranks, environment={"ATTNREG_FAULT": f"{rank}:{site}:throw"})
            self.assert_error(result, 9, f"rank {rank}:", site)
            self.assertLess(time.monotonic() - before, 10)

    def test_each_site(self):
        for site in ("start", "after-load", "in-iteration", "before-write"):
            self.ends_soon(2, 1, site)

    def test_each_rank(self):
        for rank in range(3):
            self.ends_soon(3, rank, "in-iteration")

    def test_status_says_failed(self):
        result = run("solve", self.A, self.b, "-o", self.out, ranks=3,
                     environment={"ATTNREG_FAULT": "1:after-load:throw"})
        self.assert_code(9, result)
        self.assertEqual(("failed", 9), read_status(self.out))

    def test_malformed_hook(self):
        self.fails(2, "ATTNREG_FAULT", arguments=("--help",), environment={"ATTNREG_FAULT": "1:nowhere:throw"})


# "K/N": of all visits every N-th, from the K-th on; N processes share them.
ALL_FAULTS = os.environ.get("ATTNREG_ALL_FAULTS")


def visits():
    """All, or each up to 4 and then each half as large again, though no more than 50 later."""
    if ALL_FAULTS:
        yield from itertools.count(*map(int, ALL_FAULTS.split("/")))
    k = 1
    while True:
        yield k
        k = k + 1 if k < 4 else min(k * 3 // 2, k + 50)


class LoopTest(CommandLineTest):
    """One fault at the k-th visit of a site, for one k after the other until the run ends without it.

    Whatever happens: an end within 10 s, the code of the fault, and an x.npy that is the result, of this run or of the
    one before it.
    """

    def setUp(self):
        super().setUp()
        self.write_problem()
        self.out = self.directory / "run"
        self.command = ("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", self.out, "--force",
                        "--checkpoint", "0")
        self.assert_code(0, run(*self.command))
        self.x = np.load(self.out / "x.npy")
        self.files = set(os.listdir(self.out))

    def loop(self, site, kind, codes, *arguments, ranks=2, rank=0, ends=True):
        """ends: by itself, so it leaves no file but those of a run."""
        for k in visits():
            status = read_json(self.out / "status.json")
            before = time.monotonic()
            result = run(*self.command, *arguments, ranks=ranks,
                         environment={"ATTNREG_FAULT": f"{rank}:{site}:{kind}:{k}"})
            seconds = time.monotonic() - before
            played = "attnreg: fault played" in result.stderr
            with self.subTest(site=site, kind=kind, ranks=ranks, rank=rank, k=k):
                self.assertLess(seconds, 10)
                self.assertIn(result.code, codes if played else {0}, repr(result))
                np.testing.assert_allclose(np.load(self.out / "x.npy"), self.x, rtol=0, atol=1e-9)
                if rank == 0 and kind in ("throw", "bad_alloc", "exhausted") and result.code != 0:
                    self.assertTrue(status == read_json(self.out / "status.json")  # the run came not so far
                                    or read_status(self.out) == ("failed", result.code), read_status(self.out))
                if ends:
                    self.assertLessEqual(set(os.listdir(self.out)), self.files | {"checkpoint", "history.partial.csv"})
                    self.assertNotEqual("running", read_json(self.out / "status.json")["state"])
            if not played:
                break
        self.assertGreater(k, 1, "the site was never visited")

    def test_disk(self):
        for site in ("write", "sync", "rename"):
            for kind in ("ENOSPC", "EIO"):
                self.loop(site, kind, {0, 6})

    def test_short_reads_and_writes(self):
        self.loop("write", "short", {0})
        self.loop("read", "short", {0})
        self.loop("read", "short", {0}, rank=1)

    def test_inputs_that_cannot_be_read(self):
        for rank in (0, 1):
            self.loop("read", "EIO", {3}, rank=rank)

    def test_bugs_and_lost_ranks(self):
        for rank in (0, 1):
            self.loop("message", "throw", {9}, rank=rank, ends=False)
            self.loop("message", "KILL", {137}, rank=rank, ends=False)

    def test_stopped_ranks(self):
        for rank in (0, 1) if ALL_FAULTS else (1,):
            self.loop("message", "STOP", {9}, "--watchdog", 1, rank=rank, ends=False)

    def test_memory(self):
        self.loop("allocate", "bad_alloc", {0, 7}, ends=False)
        self.loop("allocate", "exhausted", {7}, ends=False)


if __name__ == "__main__":
    unittest.main()
