"""--reproducible: the same bytes of x on any number of ranks with any number of threads, interrupted or not.

That the blocks may be dealt out in any way is tested by tests/parallel/test_reproducible.cpp."""

import shutil
import unittest

import numpy as np

from command_line import CommandLineTest, read_json, require_faults, run

RANKS = (0, 2, 3, 4, 5, 7, 8)  # 0: without mpirun


class ReproducibleTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(rows=9000, columns=12)
        self.A, self.b, self.out = (self.directory / name for name in ("A.npy", "b.npy", "run"))

    def bytes_of(self, *command, name="x.npy", ranks=0, threads=1, code=0):
        result = run(*command, "--reproducible", "--threads", threads, "-q", "--force", "-o", self.out, ranks=ranks)
        self.assert_code(code, result)
        return (self.out / name).read_bytes()

    def check(self, *command, layouts, **options):
        """The bytes on one rank, after they were found on all (ranks, threads)."""
        expected = self.bytes_of(*command, **options)
        for ranks, threads in layouts:
            with self.subTest(command=command[3:], ranks=ranks, threads=threads):
                self.assertEqual(expected, self.bytes_of(*command, ranks=ranks, threads=threads, **options))
        return expected

    def check_interruptions(self, *command, records, name="x.npy", fewest, cadence=("--checkpoint", 0)):
        """Killed at a record of an iteration, and resumed on ranks of another number. `fewest`: resumed runs that go
        on beyond the beginning."""
        require_faults()
        expected, went_on = self.bytes_of(*command, *cadence, name=name), 0
        for record in records:
            for before, after in ((3, 2), (0, 5)):
                with self.subTest(command=command[3:], record=record, ranks=(before, after)):
                    shutil.rmtree(self.out)
                    blocks = 6 if before else 16  # of rank 0: every one comes to the site
                    visit = blocks * record + 1
                    result = run(*command, "--reproducible", *cadence, "-q", "-o", self.out, ranks=before,
                                 environment={"ATTNREG_FAULT": f"0:in-iteration:KILL:{visit}"})
                    self.assertNotEqual(0, result.code, "it was over before")
                    result = run("resume", self.out, "--threads", 2, ranks=after)
                    self.assert_code(0, result)
                    went_on += "from the beginning" not in result.stderr
                    self.assertEqual(expected, (self.out / name).read_bytes())
        self.assertGreaterEqual(went_on, fewest)

    def test_any_ranks_and_threads(self):
        self.check("solve", self.A, self.b, "--weight", 1e-5, layouts=[(r, t) for r in RANKS for t in (1, 2)])
        layout = read_json(self.out / "run.json")["layout"]
        self.assertEqual((8, 16, [8] * 8), (layout["ranks"], layout["blocks"], layout["ranks_per_node"]))

    def test_methods_and_losses(self):
        for options in (("--method", "newton"), ("--method", "newton-cg"), ("--loss", "cross-entropy"),
                        ("--loss", "exp", "--method", "newton-cg", "--weight", 1e-3), ("--storage", "float")):
            self.check("solve", self.A, self.b, "--weight", 1e-5, *options[:4], layouts=((3, 2), (8, 1)))

    def test_sparse(self):
        rows, columns, entries = 9000, 12, 4
        random = np.random.default_rng(2)
        np.savez(self.directory / "A.npz", data=random.standard_normal(rows * entries),
                 indices=np.array([np.sort(random.choice(columns, entries, False)) for _ in range(rows)]).ravel()
                 .astype(np.int32),
                 indptr=np.arange(0, rows * entries + 1, entries, dtype=np.int32), shape=np.array([rows, columns]),
                 format=np.array(b"csr"))
        for method in ("newton", "newton-cg", "surrogate"):
            self.check("solve", self.directory / "A.npz", self.b, "--method", method, "--weight", 1e-4,
                       layouts=((3, 2), (7, 1)))

    def test_scores(self):
        def scores(ranks, threads, *options):
            path = self.directory / "scores.npy"
            self.assert_code(0, run("scores", self.A, "-o", path, "--force", "--reproducible", "--threads", threads,
                                    *options, ranks=ranks))
            return path.read_bytes()

        for options in ((), ("--exact",)):
            expected = scores(0, 1, *options)
            for layout in ((0, 2), (2, 1), (5, 2), (8, 1)):
                self.assertEqual(expected, scores(*layout, *options))

    def test_attention(self):
        files = self.write_attention()
        for options in (("--rank", "full"), ("--rank", "2"), ("--form", "log-odds")):
            self.check("attention", *files, *options, name="X.npy", layouts=((2, 2), (5, 1), (8, 1)))
        self.check_interruptions("attention", *files, "--form", "softmax", "--rank", "full", "--starts", 2, name="X.npy",
                                 records=(2, 18), fewest=2)

    def test_interruptions(self):
        self.check_interruptions("solve", self.A, self.b, "--weight", 1e-5, records=(2, 5), fewest=2)
        self.check_interruptions("solve", self.A, self.b, "--weight", 1e-5, "--starts", 2, "--method", "newton-cg",
                                 records=(3,), fewest=2)
        self.check_interruptions("solve", self.A, self.b, "--weights-path", "1e-3:1e-6:3", "--method", "newton-cg",
                                 records=(4, 14), fewest=2, cadence=("--checkpoint", 1e-9))

    def test_stop(self):
        """Of several targets, which share passes, a run that goes on does so from the beginning."""
        B = np.load(self.b)[:, None] * np.exp(0.3 * np.arange(5) * np.sin(np.arange(9000))[:, None])
        np.save(self.directory / "B.npy", B / B.sum(axis=0))
        command = ("solve", self.A, "--targets", self.directory / "B.npy", "--weight", 1e-5)
        expected = self.check(*command, name="X.npy", layouts=((3, 2),))
        shutil.rmtree(self.out)
        self.assert_code(75, run(*command, "--reproducible", "-q", "-o", self.out, ranks=2,
                                 environment={"ATTNREG_FAULT": "1:in-iteration:TERM:9,0:in-iteration:TERM:9"}))
        self.assert_code(0, run("resume", self.out, ranks=3))
        self.assertEqual(expected, (self.out / "X.npy").read_bytes())

    def test_more_ranks_than_blocks(self):
        for blocks in (1, 3):
            self.check("solve", self.A, self.b, "--blocks", blocks, layouts=((4, 1), (5, 2)))

    def test_a_signal_to_a_rank_without_blocks(self):
        command = ("solve", self.A, self.b, "--weight", 1e-5, "--blocks", 2, "--method", "newton-cg")
        expected = self.bytes_of(*command)
        shutil.rmtree(self.out)
        result = run(*command, "--reproducible", "-q", "-o", self.out, ranks=3,
                     environment={"ATTNREG_FAULT": "2:message:TERM:120"})
        self.assert_code(75, result)
        self.assertIn("stopped by SIGTERM", result.stderr)
        self.assert_code(0, run("resume", self.out, ranks=2))
        self.assertEqual(expected, (self.out / "x.npy").read_bytes())

    def test_errors(self):
        """Of all ranks, those without blocks too."""
        broken = np.load(self.A)
        broken[8999, 3] = np.nan
        np.save(self.A, broken)
        for ranks, blocks in ((0, 16), (3, 16), (4, 2)):
            result = run("solve", self.A, self.b, "--reproducible", "--blocks", blocks, ranks=ranks)
            self.assert_error(result, 3, "A.npy", "8999")

    def test_usage(self):
        for words in (("--blocks", 4), ("--reproducible", "--blocks", 0),
                      ("--reproducible", "--linear-solver", "scalapack")):
            self.assert_error(run("solve", self.A, self.b, *words, ranks=2), 2, "--" + str(words[-2]).strip("-"))

    def write_attention(self):
        random = np.random.default_rng(3)
        queries, keys = random.standard_normal((400, 4)), random.standard_normal((60, 4))
        Z = queries @ random.standard_normal((4, 4)) @ keys.T
        F = np.exp(Z - Z.max(axis=1, keepdims=True)) * (1 + 0.1 * random.random(Z.shape))
        files = []
        for name, matrix in (("queries", queries), ("keys", keys), ("target", F / F.sum(axis=1, keepdims=True))):
            np.save(self.directory / f"{name}.npy", matrix)
            files += [f"--{name}", self.directory / f"{name}.npy"]
        return files


if __name__ == "__main__":
    unittest.main()
