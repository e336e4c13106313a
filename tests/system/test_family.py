"""The losses exp, cosh, sinh and their rescaled forms, and several targets, from the command line."""

import json
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_history, read_json, run, softmax

LOSSES = ["exp", "cosh", "sinh", "rescaled-exp", "rescaled-cosh", "rescaled-sinh"]


class FamilyTest(CommandLineTest):
    def test_generated_problems_converge(self):
        for loss in LOSSES:
            for preset in ["practical", "coherent"]:
                with self.subTest(loss=loss, preset=preset):
                    problem, out = self.directory / f"{preset}-{loss}", self.directory / f"{preset}-{loss}-run"
                    self.assert_code(0, run("generate", preset, "--loss", loss, "--rows", 2000, "--cols", 6, "-o",
                                            problem))
                    result = run("solve", problem / "A.npy", problem / "b.npy", "--weights", problem / "w.npy",
                                 "--loss", loss, "-o", out, "--write-fitted", ranks=2)
                    self.assert_code(0, result)
                    self.assertNotIn("nan", result.stdout.lower())
                    summary = read_json(out / "run.json")["summary"]
                    self.assertIn(summary["termination"], ["converged", "converged_rounding"])
                    # what is fitted is what predict gives
                    self.assert_code(0, run("predict", problem / "A.npy", out / "x.npy", "--loss", loss, "-o",
                                            self.directory / "f.npy", "--force"))
                    np.testing.assert_allclose(np.load(self.directory / "f.npy"), np.load(out / "f.npy"), rtol=1e-10,
                                               atol=1e-12)

    def test_evaluate_is_what_numpy_finds(self):
        rng = np.random.default_rng(1)
        A, b, x = 0.3 * rng.standard_normal((40, 3)), rng.random(40) / 20, rng.standard_normal(3)
        for name, array in {"A": A, "b": b, "x": x}.items():
            np.save(self.directory / f"{name}.npy", array)
        functions = {"exp": np.exp, "cosh": np.cosh, "sinh": np.sinh}
        for loss in LOSSES:
            result = run("evaluate", self.directory / "A.npy", self.directory / "b.npy", self.directory / "x.npy",
                         "--loss", loss, "--weight", 0, "--json")
            self.assert_code(0, result)
            u = functions[loss.removeprefix("rescaled-")](A @ x)
            residual = u - (u.sum() * b if loss.startswith("rescaled") else b)
            found = json.loads(result.stdout)
            self.assertAlmostEqual(found["value"] / (0.5 * residual @ residual), 1, places=12)
            self.assertAlmostEqual(found["log_value"], np.log(0.5 * residual @ residual), places=10)

    def test_overflow_is_said_and_not_printed_as_nan(self):
        np.save(self.directory / "A.npy", np.array([[1.0], [-1.0]]))
        np.save(self.directory / "b.npy", np.array([0.5, 0.5]))
        np.save(self.directory / "x.npy", np.array([800.0]))
        files = [self.directory / f"{name}.npy" for name in ("A", "b", "x")]
        result = run("evaluate", *files, "--loss", "cosh")
        self.assertEqual(5, result.code)
        self.assertIn("overflows; ln L = 1.5986137056388", result.stdout)  # 1600 - 2 ln 2
        self.assertNotIn("nan", result.stdout.lower())
        result = run("solve", *files[:2], "--loss", "cosh", "--start", files[2], ranks=2)
        self.assertEqual(5, result.code)
        self.assertNotIn("nan", result.stdout.lower())

    def test_warnings(self):
        A = np.column_stack([np.ones(50), np.linspace(-1, 1, 50)])
        np.save(self.directory / "A.npy", A)
        np.save(self.directory / "b.npy", np.full(50, 0.1))
        solve = ["solve", self.directory / "A.npy", self.directory / "b.npy", "--loss"]
        self.assertIn("A v = 1 has a solution", run(*solve, "rescaled-exp").stdout)
        self.assertIn("b sums to 5", run(*solve, "rescaled-cosh").stdout)
        self.assertIn("below 1: cosh(A x) is not", run(*solve, "cosh").stdout)
        self.assertIn("-x is a minimiser as good as x", run(*solve, "cosh").stdout)
        self.assertIn("x = 0 is a global minimiser", run(*solve, "rescaled-sinh").stdout)


class TargetsTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(2)
        self.A = rng.standard_normal((3000, 5))
        self.B = np.column_stack([softmax(self.A @ rng.standard_normal(5)) for _ in range(4)])
        np.save(self.directory / "A.npy", self.A)
        np.save(self.directory / "B.npy", self.B)

    def test_they_are_single_solves(self):
        out = self.directory / "out"
        result = run("solve", self.directory / "A.npy", "--targets", self.directory / "B.npy", "-o", out,
                     "--write-fitted", ranks=3)
        self.assert_code(0, result)
        self.assertIn("4 of 4 targets converged", result.stdout)
        X, F = np.load(out / "X.npy"), np.load(out / "F.npy")
        for k in range(4):
            np.save(self.directory / "b.npy", self.B[:, k])
            single = self.directory / f"single{k}"
            self.assert_code(0, run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", single, "-q"))
            np.testing.assert_allclose(X[:, k], np.load(single / "x.npy"), atol=1e-6)
            np.testing.assert_allclose(F[:, k], softmax(self.A @ X[:, k]), rtol=1e-10)
        self.assertEqual(4, len(read_json(out / "run.json")["targets"]))
        self.assertEqual(4, len(read_history(out / "targets.csv")))
        self.assertEqual({0, 1, 2, 3}, set(read_history(out / "history.csv")["target"]))
        self.assertEqual(6, run("solve", self.directory / "A.npy", "--targets", self.directory / "B.npy", "-o",
                                out).code)  # a finished run

    def test_a_limit_of_one_is_the_code_of_all(self):
        result = run("solve", self.directory / "A.npy", "--targets", self.directory / "B.npy", "--max-iterations", 1)
        self.assertEqual(4, result.code)
        self.assertIn("0 of 4 targets converged", result.stdout)


class WrongTargetsTest(ErrorTest):
    def test_shapes_and_options(self):
        B = self.directory / "B.npy"
        np.save(B, np.ones((3, 2)))
        self.fails(3, "B.npy", "(3, 2)", "(57, K)", arguments=["solve", self.A, "--targets", B])
        np.save(B, np.full((57, 2), np.nan))
        self.fails(3, "B.npy", "not finite", arguments=["solve", self.A, "--targets", B])
        self.fails(2, "surplus", arguments=["solve", self.A, self.b, "--targets", B])
        self.fails(2, "missing argument b", arguments=["solve", self.A])
        self.fails(2, "exclude", arguments=["solve", self.A, "--targets", B, "--weights-path", "1e-2:1e-4:3"])


if __name__ == "__main__":
    unittest.main()
