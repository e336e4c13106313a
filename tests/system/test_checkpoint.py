"""Checkpoints: a run that is killed or stopped at any iteration goes on where it was, on any number of ranks.

Runs are ended at an iteration that a hook names, so that nothing depends on time. `--checkpoint 0` leaves a checkpoint
at every iteration that gains something."""

import os
import shutil
import unittest
import zlib

import numpy as np

from command_line import CommandLineTest, read_history, read_json, read_status, require_faults, run

SAME_MINIMUM = 1e-6  # |x - x*| / |x*| after |g| <= 1e-10 |g(0)|: the problems here have a condition of less than 1e4


class CheckpointTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(rows=1500, columns=6)
        self.A, self.b, self.out = (self.directory / name for name in ("A.npy", "b.npy", "run"))

    def start(self, command, *options, ranks=0, fault=None, out=None, checkpoint=0):
        return run(command, *options, "--checkpoint", checkpoint, "-q", "-o", out or self.out, ranks=ranks,
                   environment={"ATTNREG_FAULT": fault} if fault else None)

    def resume(self, *options, ranks=0, fault=None):
        return run("resume", self.out, *options, ranks=ranks,
                   environment={"ATTNREG_FAULT": fault} if fault else None)

    def assert_is_over(self, result, code=0):
        self.assert_code(code, result)
        self.assertEqual(("done", code), read_status(self.out))
        self.assertFalse((self.out / "checkpoint").exists())
        self.assertFalse([name for name in os.listdir(self.out) if ".tmp." in name or name == "lock"])

    def check_kills(self, command, *options, arrays=("x.npy",), ranks=(0, 3), visits=(2, 4, 7), code=0,
                    same=SAME_MINIMUM):
        """Kills at the k-th record of an iteration, goes on with the same ranks, and with others. Returns how many of
        the resumed runs went on beyond the beginning."""
        require_faults()
        went_on = 0
        for count in ranks:
            whole = self.directory / f"whole{count}"
            self.assert_code(code, self.start(command, *options, ranks=count, out=whole))
            for visit in visits:
                for other in (count, 2):
                    with self.subTest(options=options, ranks=count, visit=visit, other=other):
                        shutil.rmtree(self.out, ignore_errors=True)
                        rank = count - 1 if count else 0
                        result = self.start(command, *options, ranks=count, fault=f"{rank}:in-iteration:KILL:{visit}")
                        if result.code == code:  # it was over before
                            continue
                        self.assertTrue((self.out / "checkpoint").is_dir(), repr(result))
                        result = self.resume(ranks=other)
                        self.assert_is_over(result, code)
                        went_on += "from the beginning" not in result.stderr
                        for name in arrays:
                            found, wanted = np.load(self.out / name), np.load(whole / name)
                            if other == count:
                                np.testing.assert_array_equal(found, wanted)
                            np.testing.assert_allclose(found, wanted, rtol=0, atol=same * np.abs(wanted).max())
                        self.assert_history_is_whole()
            shutil.rmtree(whole)
        return went_on

    def assert_history_is_whole(self):
        """No iteration of a solve is missing, and none is there twice."""
        if not (self.out / "history.csv").exists():
            return
        iterations = read_history(self.out / "history.csv")["iteration"]
        follows = np.diff(iterations)
        self.assertTrue(((follows == 1) | (iterations[1:] == 0)).all(), iterations)

    def test_methods(self):
        for method in ("newton", "newton-cg", "surrogate"):
            for start in ("zero", "cross-entropy"):
                self.assertGreater(self.check_kills("solve", self.A, self.b, "--weight", 1e-5, "--method", method,
                                                    "--start", start, ranks=(3,)), 0)

    def test_default(self):
        self.assertGreater(self.check_kills("solve", self.A, self.b), 0)

    def test_sketched_newton(self):
        np.save(self.b, np.full(1500, 1 / 1500))
        self.assertGreater(self.check_kills("solve", self.A, self.b, "--weight", 1, "--method", "sketched-newton",
                                            "--loss", "exp", visits=(2, 3), ranks=(0,)), 0)

    def test_starts(self):
        self.assertGreater(self.check_kills("solve", self.A, self.b, "--starts", 3, visits=(3, 9, 14)), 0)

    def test_path(self):
        self.check_kills("solve", self.A, self.b, "--weights-path", "1e-2:1e-5:3", arrays=("x.npy", "x_path.npy"),
                         visits=(3, 7, 10), ranks=(3,))

    def test_targets(self):
        shifted = np.load(self.b)[:, None] * np.exp(0.3 * np.arange(3) * np.sin(np.arange(1500))[:, None])
        np.save(self.directory / "B.npy", shifted / shifted.sum(axis=0))
        for count, other in ((0, 0), (3, 2)):
            whole = self.directory / f"whole{count}"
            options = (self.A, "--targets", self.directory / "B.npy")
            self.assert_code(0, self.start("solve", *options, ranks=count, out=whole))
            self.start("solve", *options, ranks=count, fault="0:in-iteration:KILL:9")
            self.assert_is_over(self.resume(ranks=other))
            X = np.load(whole / "X.npy")
            np.testing.assert_allclose(np.load(self.out / "X.npy"), X, rtol=0, atol=SAME_MINIMUM * np.abs(X).max())
            shutil.rmtree(self.out)

    def test_certificate(self):
        """A kill while the certificate is made, when no iteration is left."""
        self.check_kills("solve", self.A, self.b, "--certificate", "full", "--epsilon", 1e-6, visits=(6, 8), ranks=(3,))

    def test_stops(self):
        """75, with the best x so far; what goes on reaches the same minimum, and a stop may follow a stop."""
        whole = self.directory / "whole"
        self.assert_code(0, self.start("solve", self.A, self.b, out=whole))
        for name in ("INT", "TERM", "HUP", "USR2"):
            with self.subTest(signal=name):
                shutil.rmtree(self.out, ignore_errors=True)
                result = self.start("solve", self.A, self.b, ranks=3, fault=f"1:in-iteration:{name}:3", checkpoint=60)
                self.assert_code(75, result)
                self.assertIn("attnreg resume", result.stderr)
                self.assertEqual(("stopped", 75), read_status(self.out))
                self.assertTrue(np.isfinite(np.load(self.out / "x.npy")).all())
                self.assert_code(75, run("status", self.out))
                self.assert_code(6, self.start("solve", self.A, self.b))  # there is a result
                result = self.resume(fault="0:in-iteration:TERM:2")
                self.assert_code(75, result)
                self.assert_is_over(self.resume(ranks=2))
                self.assertEqual(2, read_json(self.out / "run.json")["resumed"])
                x = np.load(whole / "x.npy")
                np.testing.assert_allclose(np.load(self.out / "x.npy"), x, rtol=0, atol=SAME_MINIMUM * np.abs(x).max())
                self.assert_history_is_whole()

    def test_stops_of_resume(self):
        """At each message and file: 75, or the end; status.json says the same, and the run goes on."""
        self.assert_code(75, self.start("solve", self.A, self.b, "--start", "zero", fault="0:in-iteration:TERM:3"))
        stopped = self.directory / "stopped"
        shutil.move(self.out, stopped)
        for site in ("message", "rename", "write"):
            for k in (1, 2, 3, 5, 8, 11, 14):
                with self.subTest(site=site, k=k):
                    shutil.copytree(stopped, self.out)
                    result = self.resume(fault=f"0:{site}:TERM:{k}")
                    self.assertIn(result.code, (0, 75), repr(result))
                    self.assertEqual(("stopped", 75) if result.code else ("done", 0), read_status(self.out))
                    if result.code:
                        result = self.resume()
                    self.assert_is_over(result)
                    shutil.rmtree(self.out)

    def test_checkpoint_on_request(self):
        """USR1 of any rank: a checkpoint, and the run goes on."""
        result = self.start("solve", self.A, self.b, "--start", "zero", "--starts", 4, ranks=3, checkpoint=1e9,
                            fault="2:in-iteration:USR1:3,0:in-iteration:KILL:14")
        self.assertNotEqual(0, result.code)
        result = self.resume()
        self.assert_is_over(result)
        self.assertNotIn("from the beginning", result.stderr)

    def test_time_limit(self):
        result = self.start("solve", self.A, self.b, "--method", "newton-cg", "--time-limit", 1e-9)
        self.assert_code(4, result)
        self.assertEqual(("done", 4), read_status(self.out))
        self.assert_is_over(self.resume("--time-limit", 100))

    def test_nothing_to_go_on_from(self):
        self.start("solve", self.A, self.b, fault="0:after-load:KILL")
        result = self.resume()
        self.assert_is_over(result)
        self.assertIn("from the beginning", result.stderr)
        result = self.resume()  # it is over
        self.assert_code(8, result)
        self.assertIn("holds no checkpoint", result.stderr)

    def test_damage(self):
        """One damaged slot: the other one serves. Both, or other inputs: code 8 on all ranks, and what to do."""
        def kill():
            shutil.rmtree(self.out, ignore_errors=True)
            self.start("solve", self.A, self.b, "--method", "newton-cg", fault="0:in-iteration:KILL:5")
            return sorted((self.out / "checkpoint").iterdir())

        def spoil(path, how):
            bytes = bytearray(path.read_bytes())
            if how == "cut":
                bytes = bytes[: len(bytes) // 2]
            elif how == "flip":
                bytes[-5] ^= 4
            elif how == "version":
                bytes = bytes.replace(b"checkpoint-1", b"checkpoint-9", 1)
            elif how == "empty":
                bytes = b""
            elif how == "deep":  # CBOR of lists in lists, with its checksum
                body = b"\x81" * 200_000 + b"\x80"
                bytes = b"attnreg-checkpoint-1 7 %d %08x\n" % (len(body), zlib.crc32(body)) + body
            path.write_bytes(bytes)

        for how in ("cut", "flip", "version", "empty", "deep"):
            for k in (0, 1):
                spoil(kill()[k], how)
                self.assert_is_over(self.resume())
            for path in kill():
                spoil(path, how)
            for ranks in (0, 3):
                result = self.resume(ranks=ranks)
                self.assert_code(8, result)
                self.assertEqual(1, len(result.messages()), repr(result))
                self.assertIn("--force", result.stderr)
        kill()
        result = self.start("solve", self.A, self.b)  # would be lost
        self.assert_error(result, 6, "attnreg resume", "--force")
        b = np.load(self.b)
        np.save(self.b, b[::-1])
        result = self.resume(ranks=2)
        self.assert_code(8, result)
        self.assertIn("b.npy has changed", result.stderr)
        self.assert_code(0, self.start("solve", self.A, self.b, "--force"))

    def test_relative_paths(self):
        """A run knows its files from wherever it is resumed."""
        before = os.getcwd()
        try:
            os.chdir(self.directory)
            self.start("solve", "A.npy", "b.npy", out="run", fault="0:in-iteration:KILL:4")
            os.chdir("/")
            self.assert_is_over(self.resume(ranks=2))
        finally:
            os.chdir(before)

    def test_attention(self):
        random = np.random.default_rng(3)
        queries, keys = random.standard_normal((30, 4)), random.standard_normal((20, 4))
        X = random.standard_normal((4, 4))
        Z = queries @ X @ keys.T
        F = np.exp(Z - Z.max(axis=1, keepdims=True))
        F /= F.sum(axis=1, keepdims=True)
        files = []
        for name, matrix in (("queries", queries), ("keys", keys), ("target", F)):
            np.save(self.directory / f"{name}.npy", matrix)
            files += [f"--{name}", self.directory / f"{name}.npy"]
        self.assertGreater(self.check_kills("attention", *files, "--form", "softmax", "--rank", "full", arrays=("X.npy",),
                                            same=1e-5), 0)


if __name__ == "__main__":
    unittest.main()
