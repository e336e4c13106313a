"""--linear-solver, --block-size, --grid."""

import unittest

import numpy as np

from command_line import WORDS, CommandLineTest, ErrorTest, read_json, run

A_WORDS, B_WORDS = WORDS / "A.npy", WORDS / "b.npy"


class SolveTest(CommandLineTest):
    def solve(self, name, *options, ranks):
        out = self.directory / name
        result = run("solve", A_WORDS, B_WORDS, "--weight", "1e-4", "--rtol", "1e-11", "-o", out, *options, ranks=ranks)
        self.assert_code(0, result)
        return np.load(out / "x.npy"), read_json(out / "run.json")["notes"]

    def test_same_x_as_rank0(self):
        for method in ("newton", "newton-cg"):
            expected, _ = self.solve(f"{method}-rank0", "--method", method, "--linear-solver", "rank0", ranks=1)
            for ranks, options, grid in ((3, ("--grid", "2x1", "--block-size", "33"), "2 x 1"), (4, (), "2 x 2")):
                with self.subTest(method=method, ranks=ranks):
                    x, notes = self.solve(f"{method}-{ranks}", "--method", method, "--linear-solver", "scalapack",
                                          *options, ranks=ranks)
                    self.assertLess(np.linalg.norm(x - expected), 1e-8 * np.linalg.norm(expected))
                    self.assertTrue(any(f"scalapack: {grid} processes" in note for note in notes), notes)

    def test_auto_is_rank0_for_few_columns(self):
        _, notes = self.solve("auto", ranks=2)
        self.assertFalse(any("scalapack" in note for note in notes), notes)

    def test_scores(self):
        found = []
        for solver in ("rank0", "scalapack"):  # more JL columns than columns: no randomness but the sketch's
            out = self.directory / f"{solver}.npy"
            self.assert_code(0, run("scores", A_WORDS, "--jl-columns", 200, "--linear-solver", solver, "-o", out, ranks=2))
            found.append(np.load(out))
        np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-10)


class UsageTest(ErrorTest):
    def test_options(self):
        command = ("solve", self.A, self.b)
        for grid in ("2x", "0x1", "1x1x1"):
            self.fails(2, "--grid", "ROWSxCOLUMNS", arguments=(*command, "--grid", grid))
        self.fails(2, "--grid 2x2", "more processes", arguments=(*command, "--grid", "2x2"))
        self.fails(2, "sketched-newton",
                   arguments=(*command, "--method", "sketched-newton", "--linear-solver", "scalapack"))
        self.fails(3, "JL column", arguments=(*command, "--linear-solver", "scalapack", "--jl-columns", "0"))

    def test_matrices_that_do_not_fit(self):
        wide = self.directory / "wide.npy"
        np.save(wide, np.ones((2, 300000), dtype=np.float32))
        np.save(self.b, np.array([0.5, 0.5]))
        for solver in ("scalapack", "auto"):
            self.fails(7, "GB needed", "available",
                       arguments=("solve", wide, self.b, "--linear-solver", solver, "--certificate", "full"))


if __name__ == "__main__":
    unittest.main()
