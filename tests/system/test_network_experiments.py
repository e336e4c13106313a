"""experiment cycle-rank, exp-network and adversarial-training on the user's own files, beside NumPy."""

import signal
import time
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run
from test_signals import Background


def ring(U, V, W):
    return np.einsum("aij,bjl,cli->abc", U, V, W)


def column(table, name):
    return [row[table["columns"].index(name)] for row in table["rows"]]


class CycleRankTest(CommandLineTest):
    def test_factors_of_a_given_tensor(self):
        generator = np.random.default_rng(1)
        factors = [generator.standard_normal((side, 2, 2)) for side in (3, 8, 6)]
        T = ring(*factors)
        for name, array in (("T", T), ("F", np.asfortranarray(T)), ("single", T.astype(np.float32))):
            np.save(self.directory / f"{name}.npy", array)
        reports = []
        for name, ranks, options in (("T", 0, ()), ("F", 2, ()), ("T", 4, ("--sampled-rows", 200)),
                                     ("single", 0, ("--residual", "1e-6"))):
            out = self.directory / f"{name}{ranks}"
            result = run("experiment", "cycle-rank", self.directory / f"{name}.npy", "--rank", 2, "--starts", 8, *options,
                         "-o", out, "--force", ranks=ranks)
            self.assert_code(0, result)
            U, V, W = (np.load(out / f"{factor}.npy") for factor in "UVW")
            self.assertEqual(((3, 2, 2), (8, 2, 2), (6, 2, 2)), (U.shape, V.shape, W.shape))
            table = read_json(out / "report.json")["tables"][0]
            reports.append(column(table, "residual"))
            self.assertEqual(8, len(table["rows"]))
            error = np.linalg.norm(ring(U, V, W) - T) / np.linalg.norm(T)
            self.assertLess(error, 1e-6 if name == "single" else 1e-12)
            self.assertAlmostEqual(error, min(reports[-1]), delta=1e-7)
            # Balanced: no factor is large because another is small.
            self.assertLess(np.ptp([np.linalg.norm(factor) for factor in (U, V, W)]), 1e-9 * np.linalg.norm(U))
        np.testing.assert_allclose(reports[0], reports[1], rtol=1e-6, atol=1e-12)

    def test_noise_and_defaults(self):
        """A tensor that is made; where a step has many equations few of them are drawn."""
        out = self.directory / "made"
        result = run("experiment", "cycle-rank", "--size", 50, "--noise", "0.1", "--starts", 4, "-o", out, ranks=2)
        self.assert_code(0, result)
        table = read_json(out / "report.json")["tables"][0]
        self.assertIn("200 drawn equations a step", table["title"])
        self.assertAlmostEqual(min(column(table, "residual")), 0.1, delta=0.003)

    def test_a_stop_in_the_middle(self):
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                out = self.directory / "out"
                work = Background("experiment", "cycle-rank", "--size", 60, "--noise", "0.5", "--starts", 100000, "-o", out,
                                  ranks=ranks)
                time.sleep(1)  # somewhere in it; where does not matter
                work.send(signal.SIGTERM, ranks - 1 if ranks else 0)
                code, stdout, stderr = work.end()
                self.assertEqual((4, ""), (code, stdout), stderr)
                self.assertIn("before there was a result", stderr)


class NetworkTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(2)
        self.X = generator.standard_normal((50, 5))
        self.y = np.where(self.X[:, 0] + 0.3 * self.X[:, 1] > 0, 1.0, -1.0)
        self.files = [self.directory / "X.npy", self.directory / "y.npy"]
        for file, array in zip(self.files, (self.X, self.y)):
            np.save(file, array)

    def test_adversarial_training(self):
        found = []
        for ranks, structure in ((0, "auto"), (3, "tree")):
            out = self.directory / f"net{ranks}"
            result = run("experiment", "adversarial-training", *self.files, "--widths", "100,3000", "--steps", 30, "--rate", 5,
                         "--structure", structure, "-o", out, ranks=ranks)
            self.assert_code(0, result)
            W, a = np.load(out / "W.npy"), np.load(out / "a.npy")
            self.assertEqual(((3000, 5), (3000,)), (W.shape, a.shape))
            X = self.X / np.linalg.norm(self.X, axis=1, keepdims=True)
            f = np.maximum(X @ W.T - np.sqrt(0.4 * np.log(3000)), 0) @ a
            table = read_json(out / "report.json")["tables"][0]
            self.assertEqual(column(table, "accuracy")[1], np.mean(f * self.y > 0))
            self.assertGreater(column(table, "accuracy")[1], 0.9)
            self.assertLess(max(column(table, "difference")), 1e-12)
            found.append(W)
        np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-12)

    def test_exponential_network(self):
        tables = []
        for ranks in (0, 2):
            out = self.directory / f"exp{ranks}"
            result = run("experiment", "exp-network", *self.files, "--widths", "4000,16000", "--steps", 200,
                         "--smallest-widths", "1,2", "-o", out, ranks=ranks)
            self.assert_code(0, result)
            tables.append(read_json(out / "report.json")["tables"])
        self.assertEqual(["exp-network", "exp-network-gauss-newton", "exp-network-widths"], [t["name"] for t in tables[0]])
        for one, other in zip(*tables):
            self.assertEqual(column(one, one["columns"][0]), column(other, other["columns"][0]))
        for name in ("initial", "final", "steps", "movement", "bound"):
            np.testing.assert_allclose(column(tables[0][0], name), column(tables[1][0], name), rtol=1e-7)
        X = self.X / np.linalg.norm(self.X, axis=1, keepdims=True)
        eigenvalues = np.linalg.eigvalsh(X @ X.T * np.exp(1 + X @ X.T))
        self.assertAlmostEqual(column(tables[0][0], "kernel_bound")[0], 1 - eigenvalues[0] / eigenvalues[-1], delta=1e-12)


    def test_points_that_depend_on_each_other(self):
        """Gauss-Newton where the kernel is singular: each point twice, with other values."""
        X = np.repeat(self.X[:6], 2, axis=0)
        y = np.arange(12.0)
        np.save(self.files[0], X)
        for scale in (1, 1e200):
            np.save(self.files[1], scale * y)
            out = self.directory / f"singular{scale}"
            self.assert_code(0, run("experiment", "exp-network", *self.files, "--widths", 2000, "--steps", 60,
                                    "--residual", scale * 1e-6, "-o", out))
            table = read_json(out / "report.json")["tables"][1]
            if scale == 1:  # (y_1 - y_2)^2 / 2 of each pair remains
                self.assertAlmostEqual(column(table, "final")[0], np.sqrt(6 * 0.5), delta=1e-6)
            else:
                self.assertAlmostEqual(column(table, "initial")[0] / np.linalg.norm(y) / scale, 1, places=9)

    def test_a_ball_without_end(self):
        losses = []
        for radius in ("1", "1e300"):
            out = self.directory / radius
            self.assert_code(0, run("experiment", "adversarial-training", *self.files, "--widths", 300, "--steps", 1,
                                    "--rate", "1e-300", "--radius", radius, "-o", out, ranks=2))
            losses.append(column(read_json(out / "report.json")["tables"][0], "loss")[0])
        self.assertGreater(losses[1], 1e250)
        self.assertTrue(np.isfinite(losses[1]) and losses[0] < 100)


class NetworkRefusalTest(ErrorTest):
    def save(self, name, array):
        np.save(self.directory / name, array)
        return self.directory / name

    def test_refusals(self):
        T = self.save("T.npy", np.ones((3, 4, 5)))
        bad = np.ones((3, 4, 5))
        bad[1, 2, 3] = np.inf
        cycle = ("experiment", "cycle-rank")
        self.fails(3, "expected a tensor (n1, n2, n3)", arguments=(*cycle, self.A))
        self.fails(3, "element (1, 2, 3) is inf", arguments=(*cycle, self.save("bad.npy", bad)))
        self.fails(3, "all entries of the tensor are 0", arguments=(*cycle, self.save("zero.npy", np.zeros((3, 4, 5)))))
        self.fails(3, "has 15 equations for the 16 unknowns", arguments=(*cycle, T, "--rank", 4))
        self.fails(3, "missing.npy", arguments=(*cycle, self.directory / "missing.npy"))
        self.fails(2, "--noise", arguments=(*cycle, T, "--noise", "0.1"))
        self.fails(2, "takes T.npy", arguments=(*cycle, T, T))
        self.fails(2, "is not an option of cycle-rank", arguments=(*cycle, "--widths", "5"))
        train, y = ("experiment", "adversarial-training"), self.save("y.npy", np.ones(57))
        self.fails(3, "expected 1 or -1", arguments=(*train, self.A, self.b))
        self.fails(3, "X has 57 rows, and y 5 values", arguments=(*train, self.A, self.save("short.npy", np.ones(5))))
        X = np.ones((57, 3))
        X[4] = 0
        self.fails(3, "row 4 of X", arguments=(*train, self.save("X.npy", X), y))
        self.fails(2, "takes X.npy and y.npy", arguments=(*train, self.A))
        self.fails(2, "--points", arguments=(*train, self.A, y, "--points", 3))
        self.fails(2, "--widths is '5,x'; expected integers from 2", arguments=(*train, "--widths", "5,x"))
        self.fails(2, "--widths is '1'", arguments=(*train, "--widths", "1"))
        self.fails(3, "10 points, not 11", arguments=("experiment", "exp-network", "--widths", "9", "--steps", "3",
                                                      "--smallest-widths", "11"))


if __name__ == "__main__":
    unittest.main()
