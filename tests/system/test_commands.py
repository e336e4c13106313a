"""evaluate, predict, inspect, generate, and the pages of --help and --version."""

import json
import unittest

import numpy as np

from command_line import CommandLineTest, read_json, run, softmax


def softmax_loss(A, b, w, x):
    """Value, gradient and Hessian of 1/2 |f - b|^2 + 1/2 |diag(w) A x|^2, from the definition of f and its Jacobian."""
    z = A @ x
    f = softmax(z)
    jacobian = np.diag(f) - np.outer(f, f)
    residual = f - b
    second = np.zeros((len(f), len(f)))  # sum_i residual_i Hess f_i
    for i, f_i in enumerate(f):
        e = np.zeros(len(f))
        e[i] = 1
        second += residual[i] * f_i * (np.outer(e - f, e - f) - jacobian)
    regulariser = np.diag(w**2)
    return (0.5 * residual @ residual + 0.5 * np.sum((w * z) ** 2),
            A.T @ (jacobian @ residual + w**2 * z),
            A.T @ (jacobian @ jacobian + second + regulariser) @ A)


def cross_entropy_loss(A, b, w, x):
    z = A @ x
    f = softmax(z)
    log_sum = z.max() + np.log(np.exp(z - z.max()).sum())
    total = b.sum()
    return (total * log_sum - b @ z + 0.5 * np.sum((w * z) ** 2),
            A.T @ (total * f - b + w**2 * z),
            A.T @ (total * (np.diag(f) - np.outer(f, f)) + np.diag(w**2)) @ A)


class EvaluateTest(CommandLineTest):
    def evaluate(self, *options, ranks):
        result = run("evaluate", *(self.directory / f"{name}.npy" for name in "Abx"), *options, "--json", "--gradient",
                     self.directory / "g.npy", "--hessian", self.directory / "H.npy", "--force", ranks=ranks)
        self.assert_code(0, result)
        (self.directory / "result.json").write_text(result.stdout)
        return (read_json(self.directory / "result.json"), np.load(self.directory / "g.npy"),
                np.load(self.directory / "H.npy"))

    def test_agrees_with_the_formulas(self):
        A, b, x = self.write_problem()
        w = np.random.default_rng(5).uniform(0, 0.1, len(b))
        np.save(self.directory / "w.npy", w)
        losses = {"softmax": softmax_loss, "cross-entropy": cross_entropy_loss}
        for (name, formula), ranks in zip(losses.items(), (3, 2)):
            for options, weights in ((("--weight", "0.02"), np.full(len(b), 0.02)),
                                     (("--weights", self.directory / "w.npy"), w)):
                with self.subTest(loss=name, options=options[0]):
                    result, g, H = self.evaluate("--loss", name, *options, ranks=ranks)
                    value, gradient, hessian = formula(A, b, weights, x)
                    self.assertEqual(name, result["loss"])
                    self.assertAlmostEqual(result["value"] / value, 1, delta=1e-13)
                    self.assertAlmostEqual(result["gradient_norm"] / np.linalg.norm(gradient), 1, delta=1e-10)
                    np.testing.assert_allclose(g, gradient, rtol=0, atol=1e-12 * np.linalg.norm(gradient))
                    np.testing.assert_allclose(H, hessian, rtol=0, atol=1e-12 * np.linalg.norm(hessian))

    def test_text_has_17_digits(self):
        A, b, x = self.write_problem()
        result = run("evaluate", *(self.directory / f"{name}.npy" for name in "Abx"), "--weight", "0.01")
        self.assert_code(0, result)
        label, number = result.stdout.splitlines()[0].split()
        self.assertEqual("L", label)
        self.assertRegex(number, r"^\d\.\d{16}e[-+]\d\d$")
        self.assertAlmostEqual(float(number) / softmax_loss(A, b, np.full(len(b), 0.01), x)[0], 1, delta=1e-13)

    def test_values_that_overflow_are_null(self):
        self.write_problem()
        np.save(self.directory / "x.npy", np.full(3, 1e306))
        np.save(self.directory / "A.npy", np.full((57, 3), 1e200))
        for ranks in (1, 3):
            result = run("evaluate", *(self.directory / f"{name}.npy" for name in "Abx"), "--json", ranks=ranks)
            self.assert_code(5, result)
            self.assertIsNone(json.loads(result.stdout)["value"])


class PredictTest(CommandLineTest):
    def test_softmax_on_any_number_of_ranks(self):
        A, _, x = self.write_problem()
        for ranks in (1, 2, 3):
            path = self.directory / f"f{ranks}.npy"
            result = run("predict", self.directory / "A.npy", self.directory / "x.npy", "-o", path, ranks=ranks)
            self.assert_code(0, result)
            np.testing.assert_allclose(np.load(path), softmax(A @ x), rtol=1e-13)

    def test_needs_an_output_that_can_be_written(self):
        self.write_problem()
        files = self.directory / "A.npy", self.directory / "x.npy"
        for ranks in (1, 3):
            self.assert_error(run("predict", *files, ranks=ranks), 2, "--output")
            self.assert_error(run("predict", *files, "-o", files[0] / "f.npy", ranks=ranks), 6, "A.npy/f.npy")
            self.assert_error(run("predict", *files, "-o", self.directory, ranks=ranks), 6, "directory")


class InspectTest(CommandLineTest):
    def inspect(self, array, *options, ranks=0):
        np.save(self.directory / "file.npy", array)
        return run("inspect", self.directory / "file.npy", *options, ranks=ranks)

    def json(self, array, ranks):
        result = self.inspect(array, "--json", ranks=ranks)
        (self.directory / "result.json").write_text(result.stdout)
        return result.code, read_json(self.directory / "result.json")

    def test_matrix(self):
        A = np.random.default_rng(1).standard_normal((1000, 7))
        for ranks, form in ((1, A), (3, np.asfortranarray(A)), (2, A.astype(">f8"))):
            code, facts = self.json(form, ranks)
            self.assertEqual((0, [1000, 7], form.dtype.str), (code, facts["shape"], facts["dtype"]))
            self.assertEqual((A.min(), A.max(), 0), (facts["minimum"], facts["maximum"], facts["not_finite"]))
            self.assertEqual(form.flags.f_contiguous, facts["fortran_order"])
            self.assertNotIn("sum", facts)

    def test_vector(self):
        b = np.random.default_rng(1).uniform(size=500).astype("<f4")
        code, facts = self.json(b, 3)
        self.assertEqual((0, [500], "<f4"), (code, facts["shape"], facts["dtype"]))
        self.assertAlmostEqual(facts["sum"], b.astype(float).sum(), delta=1e-10)
        text = self.inspect(b)
        self.assert_code(0, text)
        for word in ("(500,)", "float32", "minimum", "sum", "finite    yes"):
            self.assertIn(word, text.stdout)

    def test_not_finite(self):
        A = np.ones((900, 4))
        A[700, 2], A[800, 0] = np.nan, np.inf
        for ranks in (1, 3):
            result = self.inspect(A, ranks=ranks)
            self.assert_code(3, result)
            self.assertIn("2 values", result.stdout)
            self.assertIn("row 700, column 2", result.stdout)

    def test_other_files(self):
        (self.directory / "text").write_text("1,2,3\n")
        self.assert_error(run("inspect", self.directory / "text"), 3, "text")
        self.assert_error(run("inspect", self.directory / "absent.npy", ranks=3), 3, "absent.npy")
        np.save(self.directory / "cube.npy", np.ones((2, 2, 2)))
        self.assert_error(run("inspect", self.directory / "cube.npy"), 3, "cube.npy")


class GenerateTest(CommandLineTest):
    FILES = ("A.npy", "b.npy", "w.npy", "x_true.npy", "meta.json")

    def generate(self, preset, out, *options, ranks):
        result = run("generate", preset, "--rows", "3000", "--cols", "6", "-o", self.directory / out, *options,
                     ranks=ranks)
        self.assert_code(0, result)
        return self.directory / out

    def test_same_bytes_on_any_number_of_ranks(self):
        for preset in ("easy", "practical", "illcond", "coherent", "misfit"):
            with self.subTest(preset=preset):
                one = self.generate(preset, f"{preset}1", ranks=1)
                three = self.generate(preset, f"{preset}3", ranks=3)
                for name in self.FILES:
                    self.assertEqual((one / name).read_bytes(), (three / name).read_bytes(), name)

    def test_shapes_and_facts(self):
        out = self.generate("practical", "problem", "--seed", "7", "--dtype", "float32", ranks=2)
        A, b, w, x = (np.load(out / name) for name in self.FILES[:4])
        self.assertEqual(((3000, 6), "<f4"), (A.shape, A.dtype.str))
        self.assertEqual(((3000,), (3000,), (6,)), (b.shape, w.shape, x.shape))
        meta = read_json(out / "meta.json")
        self.assertEqual(("practical", 3000, 6, 7), tuple(meta[k] for k in ("preset", "n", "d", "seed")))
        z = A.astype(float) @ x
        expected = {"z_true_std": z.std(), "z_true_max": z.max(), "b_max": b.max(), "neff_b": 1 / (b @ b),
                    "w_mean": w.mean(), "loss_at_0": 0.5 * np.sum((b - 1 / 3000) ** 2),
                    "reg_at_xtrue": 0.5 * np.sum((w * z) ** 2)}
        for key, value in expected.items():
            self.assertAlmostEqual(meta[key] / value, 1, delta=1e-9, msg=key)

    def test_generated_problem_can_be_solved(self):
        out = self.generate("practical", "problem", ranks=2)
        result = run("solve", out / "A.npy", out / "b.npy", "--weights", out / "w.npy", "--start", "cross-entropy",
                     "-o", self.directory / "run", ranks=3)
        self.assert_code(0, result)
        self.assertGreater(read_json(self.directory / "run" / "run.json")["summary"]["fit"]["r_squared"], 0.9)

    def test_problem_is_kept_without_force(self):
        out = self.generate("practical", "problem", ranks=0)
        before = (out / "A.npy").read_bytes()
        for ranks in (1, 3):
            result = run("generate", "easy", "--rows", "9", "--cols", "2", "-o", out, ranks=ranks)
            self.assert_error(result, 6, "--force")
        self.assertEqual(before, (out / "A.npy").read_bytes())
        self.assert_code(0, run("generate", "easy", "--rows", "9", "--cols", "2", "-o", out, "--force"))
        self.assertEqual((9, 2), np.load(out / "A.npy").shape)

    def test_usage(self):
        out = self.directory / "problem"
        for ranks in (1, 3):
            self.assert_error(run("generate", "practcal", "--rows", "9", "--cols", "2", "-o", out, ranks=ranks), 2,
                              "did you mean 'practical'")
            self.assert_error(run("generate", "easy", "--cols", "2", "-o", out, ranks=ranks), 2, "--rows")
        for bad in (("--rows", "-1"), ("--rows", "0"), ("--rows", "1e3"), ("--cols", "99999999999999999999")):
            self.assert_error(run("generate", "easy", "--rows", "9", *bad, "-o", out), 2, bad[0])
        self.assertFalse(out.exists())


class PagesTest(CommandLineTest):
    COMMANDS = ("solve", "evaluate", "predict", "inspect", "generate")

    def test_help(self):
        for ranks in (0, 3):
            result = run("--help", ranks=ranks)
            self.assert_code(0, result)
            self.assertEqual(1, result.stdout.count("Usage:"))
            for command in self.COMMANDS:
                self.assertIn(f"\n  {command}", result.stdout)
            self.assertLess(result.stdout.index("Options:"), result.stdout.index("Examples:"))

    def test_help_of_each_command(self):
        for command in self.COMMANDS:
            result = run(command, "--help")
            self.assert_code(0, result)
            self.assertTrue(result.stdout.startswith(f"Usage: attnreg {command}"))
            self.assertIn("--help", result.stdout)

    def test_version(self):
        for ranks in (0, 2):
            result = run("--version", ranks=ranks)
            self.assert_code(0, result)
            self.assertRegex(result.stdout, r"^attnreg \d+\.\d+")
            for fact in ("git", "compiler", "flags", "MPI, running", "Eigen", "OpenBLAS"):
                self.assertEqual(1, sum(line.startswith(fact) for line in result.stdout.splitlines()), fact)

    def test_nothing_to_do(self):
        for ranks in (0, 2):
            result = run(ranks=ranks)
            self.assert_code(2, result)
            self.assertEqual("", result.stdout)
            self.assertEqual(1, result.stderr.count("Usage:"))


if __name__ == "__main__":
    unittest.main()
