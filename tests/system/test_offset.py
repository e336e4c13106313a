"""Offsets of the logits: exposures, priors and masks, from files."""

import os
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run, softmax

EVERY = 7  # one row in so many is masked


def poisson_regression(A, counts, exposure):
    """Slopes of ln mean = intercept + A x + ln exposure, by iteratively reweighted least squares."""
    X = np.column_stack([np.ones(len(A)), A])
    beta = np.zeros(X.shape[1])
    beta[0] = np.log(counts.sum() / exposure.sum())
    for _ in range(50):
        mean = exposure * np.exp(X @ beta)
        beta += np.linalg.solve(X.T @ (mean[:, None] * X), X.T @ (counts - mean))
    return beta[1:]


class OffsetTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(5)
        self.A = generator.standard_normal((400, 3))
        self.exposure = generator.uniform(1, 100, 400)
        self.counts = generator.poisson(self.exposure * np.exp(self.A @ [0.5, -0.3, 0.1])).astype(float)
        self.masked = np.arange(400) % EVERY == 0
        offset = np.log(self.exposure)
        for name, array in (("A", self.A), ("counts", self.counts), ("offset", offset.astype("f4")),
                            ("masked", np.where(self.masked, -np.inf, offset)),
                            ("rest", np.where(self.masked, 0, self.counts))):
            np.save(self.directory / f"{name}.npy", array)
        self.offset = offset.astype("f4").astype(float)

    def file(self, name):
        return self.directory / f"{name}.npy"

    def solve(self, target, offset, *options, ranks=0, out="run"):
        result = run("solve", self.file("A"), self.file(target), "--offset", self.file(offset), *options, "-o",
                     self.directory / out, ranks=ranks)
        return result, self.directory / out

    def test_a_log_linear_model_with_exposures(self):
        expected = poisson_regression(self.A, self.counts, np.exp(self.offset))
        for ranks in (0, 3):
            result, out = self.solve("counts", "offset", "--loss", "cross-entropy", "--weight", 0, "--write-fitted",
                                     "--certificate", "full", "--normalise-b", ranks=ranks, out=f"run{ranks}")
            self.assert_code(0, result)
            self.assertIn(f"offset {self.file('offset')}", result.stdout)
            self.assertIn("Fit of f = softmax(A x + o) to b", result.stdout)
            x, f = np.load(out / "x.npy"), np.load(out / "f.npy")
            np.testing.assert_allclose(x, expected, rtol=1e-8)
            np.testing.assert_allclose(f, softmax(self.A @ x + self.offset), rtol=1e-10)
            json = read_json(out / "run.json")
            self.assertEqual([400], json["inputs"]["offset"]["shape"])
            self.assertLess(json["certificate"]["distance_bound"], 1e-6)
            self.assertEqual(run("predict", self.file("A"), out / "x.npy", "--offset", self.file("offset"), "-o",
                                 out / "again.npy", ranks=ranks).code, 0)
            np.testing.assert_allclose(np.load(out / "again.npy"), f, rtol=1e-12)

    def test_a_mask_leaves_rows_out(self):
        rest = ~self.masked
        expected = poisson_regression(self.A[rest], self.counts[rest], self.exposure[rest])
        for ranks in (0, 3):
            result, out = self.solve("rest", "masked", "--loss", "cross-entropy", "--weight", 0, "--write-fitted",
                                     ranks=ranks, out=f"run{ranks}")
            self.assert_code(0, result)
            np.testing.assert_allclose(np.load(out / "x.npy"), expected, rtol=1e-8)
            f = np.load(out / "f.npy")
            self.assertTrue((f[self.masked] == 0).all() and (f[rest] > 0).all())
        result, _ = self.solve("counts", "masked", "--normalise-b", out="misfit")
        self.assert_code(0, result)
        self.assertIn(f"{np.count_nonzero(self.counts[self.masked])} values of b in masked rows", result.stdout)
        self.assertIn(f"b was divided by its sum, {self.counts[rest].sum():.0f}", result.stdout)
        self.assertNotIn("not to 1", result.stdout)

    def test_evaluate_has_offset_and_ridge(self):
        x = np.array([0.4, -0.2, 0.3])
        np.save(self.file("x"), x)
        b = self.counts / self.counts.sum()
        f = softmax(self.A @ x + self.offset)
        sizes = np.linalg.norm(self.A - self.A.mean(axis=0), axis=0)
        for option, r in (("--ridge", np.full(3, 0.5)), ("--ridge-scaled", 0.5 * sizes**2)):
            result = run("evaluate", self.file("A"), self.file("counts"), self.file("x"), "--normalise-b", "--weight",
                         0.1, "--offset", self.file("offset"), option, 0.5, "--json", "--gradient",
                         self.directory / "g.npy", "--hessian", self.directory / "H.npy", "--force", ranks=2)
            self.assert_code(0, result)
            value = 0.5 * np.sum((f - b) ** 2) + 0.005 * np.sum((self.A @ x) ** 2) + 0.5 * r @ x**2
            self.assertIn(f'"value": {value:.12g}'[:20], result.stdout)
            gradient = self.A.T @ (f * (f - b) - f * (f @ (f - b)) + 0.01 * self.A @ x) + r * x
            np.testing.assert_allclose(np.load(self.directory / "g.npy"), gradient, rtol=1e-10)
            H = np.load(self.directory / "H.npy")
            self.assertGreater(np.linalg.eigvalsh(H - np.diag(r))[0], -1)
            self.assertLess(np.abs(H - H.T).max(), 1e-12)

    def test_targets_paths_and_reports_have_it(self):
        np.save(self.file("B"), np.column_stack([self.counts, self.counts[::-1]]))
        result = run("solve", self.file("A"), "--targets", self.file("B"), "--normalise-b", "--offset",
                     self.file("offset"), "-o", self.directory / "targets", ranks=2)
        self.assert_code(0, result)
        self.assertIn("offset", result.stdout)
        result, out = self.solve("counts", "offset", "--normalise-b", "--report")
        self.assert_code(0, result)
        np.testing.assert_allclose(np.load(self.directory / "targets" / "X.npy")[:, 0], np.load(out / "x.npy"),
                                   rtol=1e-6)
        self.assertNotIn("could be made anew", (out / "report.html").read_text())
        result, path = self.solve("counts", "offset", "--normalise-b", "--weights-path", "1e-2:1e-4:3", out="path")
        self.assert_code(0, result)
        np.testing.assert_allclose(np.load(path / "x_path.npy")[2], np.load(out / "x.npy"), rtol=1e-6)

    def test_reproducible_runs_have_the_same_bits(self):
        found = []
        for ranks in (1, 3):
            result, out = self.solve("rest", "masked", "--normalise-b", "--reproducible", ranks=ranks, out=f"r{ranks}")
            self.assert_code(0, result)
            found.append((out / "x.npy").read_bytes())
        self.assertEqual(*found)

    def test_a_run_that_was_killed_goes_on_with_the_same_offset_only(self):
        how = ["--normalise-b", "--method", "newton", "--start", "zero", "--checkpoint", 0, "-q"]
        whole = self.solve("rest", "masked", *how, out="whole")[1]
        fault = {"ATTNREG_FAULT": "0:in-iteration:KILL:3"}
        command = ["solve", self.file("A"), self.file("rest"), "--offset", self.file("masked"), *how, "-o",
                   self.directory / "run"]
        self.assertNotEqual(run(*command, environment=fault).code, 0)
        good, times = self.file("masked").read_bytes(), self.file("masked").stat()
        self.file("masked").write_bytes(good[:-8] + np.float64(0).tobytes())
        result = run("resume", self.directory / "run")
        self.assert_code(8, result)
        self.assertIn("masked.npy", result.stderr)
        self.file("masked").write_bytes(good)
        os.utime(self.file("masked"), ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assert_code(0, run("resume", self.directory / "run", ranks=2))
        np.testing.assert_allclose(np.load(self.directory / "run" / "x.npy"), np.load(whole / "x.npy"), rtol=1e-6)


class WrongOffsetTest(ErrorTest):
    def offset(self, value, row=9):
        array = np.zeros(57)
        array[row] = value
        np.save(self.directory / "o.npy", array)
        return ["--offset", self.directory / "o.npy"]

    def test_files(self):
        solve = ["solve", self.A, self.b]
        for value, text in ((np.nan, "nan"), (np.inf, "inf"), (-2e300, "1e300")):
            self.fails(3, "o.npy", "row 9", text, "counted from 0", arguments=[*solve, *self.offset(value)])
        self.fails(3, "o.npy", "row 9", "sinh knows no masks",
                   arguments=[*solve, *self.offset(-np.inf), "--loss", "sinh"])
        self.fails(3, "row 9", "the cross-entropy is infinite",
                   arguments=[*solve, *self.offset(-np.inf), "--loss", "cross-entropy"])
        np.save(self.directory / "o.npy", np.full(57, -np.inf))
        self.fails(3, "o.npy", "all rows", arguments=[*solve, "--offset", self.directory / "o.npy"])
        np.save(self.directory / "o.npy", np.zeros(56))
        x = self.directory / "x.npy"
        for command in (solve, ["evaluate", self.A, self.b, x], ["predict", self.A, x, "-o", self.out]):
            self.fails(3, "o.npy", "(56,)", "(57,)", arguments=[*command, "--offset", self.directory / "o.npy"])
        self.fails(3, "none.npy", arguments=[*solve, "--offset", self.directory / "none.npy"])
        self.fails(2, "exclude", arguments=["evaluate", self.A, self.b, x, "--ridge", 1, "--ridge-scaled", 1])


if __name__ == "__main__":
    unittest.main()
