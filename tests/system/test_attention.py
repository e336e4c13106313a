"""attention, and evaluate for it: from files to files; the example and the tutorial."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

import numpy as np

from command_line import MPIRUN, PROGRAM, SOURCE_DIR, CommandLineTest, read_history, read_json, read_status, run


def softmax_rows(Z):
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


class AttentionTest(CommandLineTest):
    """Queries 31 x 3, keys 17 x 4, values 17 x 2; target F, and output F values Y."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(4)
        self.X, self.Y = 0.5 * generator.standard_normal((3, 4)), generator.standard_normal((2, 5))
        self.queries, self.keys = generator.standard_normal((31, 3)), generator.standard_normal((17, 4))
        self.values = generator.standard_normal((17, 2))
        self.F = softmax_rows(self.queries @ self.X @ self.keys.T)
        for name, array in (("queries", self.queries), ("keys", self.keys), ("values", self.values), ("F", self.F),
                            ("out", self.F @ self.values @ self.Y), ("weights", np.full((31, 17), 1e-2))):
            np.save(self.file(name), array)
        self.out = self.directory / "run"

    def file(self, name):
        return self.directory / f"{name}.npy"

    def data(self, *, values=False):
        options = ["--queries", self.file("queries"), "--keys", self.file("keys")]
        return options + (["--values", self.file("values"), "--target", self.file("out")] if values else
                          ["--target", self.file("F")])

    def assert_found(self, name, expected):
        found = np.load(self.out / f"{name}.npy")
        self.assertEqual(expected.shape, found.shape)
        self.assertLess(np.linalg.norm(found - expected), 1e-7 * np.linalg.norm(expected))

    def test_recovers_X_and_writes_the_run(self):
        result = run("attention", *self.data(), "-o", self.out, ranks=2)
        self.assert_code(0, result)
        self.assertTrue(result.stdout.startswith("converged"), result.stdout)
        self.assert_found("X", self.X)
        self.assertEqual(("done", 0), read_status(self.out))
        summary = read_json(self.out / "run.json")["summary"]
        self.assertLess(summary["relative_error"], 1e-8)
        self.assertEqual(summary["iterations"], read_history(self.out / "history.csv")["iteration"][-1])
        self.assertFalse((self.out / "Y.npy").exists())

        again = run("attention", *self.data(), "-o", self.out)
        self.assert_error(again, 6, "--force")
        self.assert_code(0, run("attention", *self.data(), "--rank", 3, "-o", self.out, "--force", ranks=3))
        np.testing.assert_allclose(np.load(self.out / "P.npy") @ np.load(self.out / "Q.npy").T, self.X, atol=1e-7)
        self.assert_code(0, run("attention", *self.data(), "--model", "kronecker", "-o", self.out, "--force"))
        self.assert_found("X", self.X)
        self.assertFalse((self.out / "P.npy").exists())  # of the run that was replaced

    def test_recovers_one_layer_by_either_method(self):
        for method, ranks in (("varpro", 0), ("joint", 2)):
            with self.subTest(method=method):
                result = run("attention", *self.data(values=True), "--method", method, "--starts", 20, "-o", self.out,
                             "--force", ranks=ranks)
                self.assert_code(0, result)
                self.assertIn(method, result.stdout)
                self.assert_found("X", self.X)
                self.assert_found("Y", self.Y)

    def test_certificate(self):
        for options, free in (((), 0), (("--rank", 2), 4)):
            result = run("attention", *self.data(), *options, "--certificate", "full", "-o", self.out, "--force", ranks=2)
            self.assertIn("Certificate", result.stdout)
            certificate = read_json(self.out / "run.json")["certificate"]
            self.assertEqual(free, certificate["free_directions"])
            self.assertTrue(certificate["complete"])
            if not options:
                self.assertEqual("local minimum", certificate["kind"])
                self.assertGreater(certificate["smallest_eigenvalue"], certificate["eigenvalue_rounding"])

    def test_goes_on_from_a_run(self):
        self.assert_code(4, run("attention", *self.data(), "--start", "zero", "--max-iterations", 1, "-o", self.out))
        second = self.directory / "second"
        self.assert_code(0, run("attention", *self.data(), "--start", self.out, "-o", second))
        self.assertLess(read_json(second / "run.json")["summary"]["relative_error"], 1e-8)

    def test_lists_of_sequences(self):
        (self.directory / "list.txt").write_text("# all of them\nqueries.npy keys.npy F.npy\n\n"
                                                 "queries.npy keys.npy F.npy weights.npy\n")
        result = run("attention", "--sequences", self.directory / "list.txt", "-o", self.out, ranks=2)
        self.assert_code(0, result)
        self.assertIn("2 sequences", result.stdout)
        (self.directory / "list.txt").write_text("queries.npy keys.npy values.npy out.npy\n" * 2)
        self.assert_code(0, run("attention", "--sequences", self.directory / "list.txt", "-o", self.out, "--force"))
        self.assert_found("Y", self.Y)

    def test_evaluate_agrees_with_differences(self):
        for values in (False, True):
            generator = np.random.default_rng(8)
            X, Y = generator.standard_normal((3, 4)), generator.standard_normal((2, 5))

            def loss(u):
                Z = self.queries @ u[:12].reshape(3, 4) @ self.keys.T
                if values:
                    return np.sum((softmax_rows(Z) @ self.values @ u[12:].reshape(2, 5) - np.load(self.file("out")))**2)
                return 0.5 * np.sum((softmax_rows(Z) - self.F)**2) + 0.5 * np.sum((1e-2 * Z)**2)

            u = np.concatenate([X.ravel(), Y.ravel()]) if values else X.ravel()
            np.save(self.file("X"), X)
            np.save(self.file("Y"), Y)
            options = ["--Y", self.file("Y")] if values else ["--weights", self.file("weights")]
            result = run("evaluate", *self.data(values=values), "--X", self.file("X"), *options, "--json", "--gradient",
                         self.file("g"), "--hessian", self.file("H"), ranks=2)
            self.assert_code(0, result)
            (self.directory / "result.json").write_text(result.stdout)
            self.assertAlmostEqual(read_json(self.directory / "result.json")["value"] / loss(u), 1, delta=1e-13)
            h, g, H = 1e-4, np.load(self.file("g")), np.load(self.file("H"))
            unit = np.eye(len(u))
            slopes = np.array([(loss(u + h * e) - loss(u - h * e)) / (2 * h) for e in unit])
            np.testing.assert_allclose(g, slopes, atol=1e-6 * np.linalg.norm(g))
            curvature = (loss(u + h * unit[0]) - 2 * loss(u) + loss(u - h * unit[0])) / h**2
            self.assertAlmostEqual(H[0, 0], curvature, delta=1e-4 * np.linalg.norm(H))

    def test_every_form(self):
        """The old spellings are the losses of the family; evaluate knows them all; a planted exp is found."""
        np.save(self.file("X"), self.X)

        def evaluate(form):
            result = run("evaluate", *self.data(), "--X", self.file("X"), "--form", form, "--json", ranks=2)
            self.assert_code(0, result)
            (self.directory / "result.json").write_text(result.stdout)
            return read_json(self.directory / "result.json")["value"]

        Z = self.queries @ self.X @ self.keys.T
        for name, u in (("exp", np.exp(Z)), ("cosh", np.cosh(Z)), ("sinh", np.sinh(Z))):
            with self.subTest(form=name):
                self.assertAlmostEqual(evaluate(name) / (0.5 * np.sum((u - self.F)**2)), 1, delta=1e-12)
                rescaled = 0.5 * np.sum((u - u.sum(axis=1, keepdims=True) * self.F)**2)
                self.assertAlmostEqual(evaluate(f"rescaled-{name}"), rescaled, delta=1e-12 * np.sum(u**2))
        self.assertEqual(evaluate("normalised"), evaluate("softmax"))
        self.assertEqual(evaluate("rescaled"), evaluate("rescaled-exp"))

        np.save(self.file("u"), np.exp(Z))
        result = run("attention", *self.data()[:-1], self.file("u"), "--form", "exp", "-o", self.out, ranks=2)
        self.assert_code(0, result)
        self.assertIn("F = exp(A1 X A2^T)", result.stdout)
        self.assert_found("X", self.X)
        even = run("attention", *self.data(), "--form", "cosh", "--starts", 2, "-o", self.out, "--force")
        self.assertIn("-X is a minimiser as good as X", even.stdout)
        self.assertIn("Ends: L", even.stdout)
        self.assertTrue(read_json(self.out / "run.json")["minima"])

    def test_warns_of_rescaled_without_weights(self):
        result = run("attention", *self.data(), "--form", "rescaled", "--max-iterations", 2)
        self.assertIn("infimum 0", result.stdout)

    def test_wrong_input(self):
        np.save(self.file("short"), self.F[:-1])
        np.save(self.file("text"), self.F[:, :-1])
        (self.directory / "list.txt").write_text("queries.npy keys.npy\n")
        for code, texts, arguments in (
                (2, ["--keys is needed"], ["--queries", self.file("queries")]),
                (2, ["--values", "--weights"], [*self.data(values=True), "--weights", self.file("weights")]),
                (2, ["--form normalised"], [*self.data(values=True), "--form", "rescaled"]),
                (2, ["--start"], [*self.data(), "--start", "zeros"]),
                (2, ["--sequences", "--queries"], [*self.data(), "--sequences", "list.txt"]),
                (3, ["line 1", "queries keys"], ["--sequences", self.directory / "list.txt"]),
                (3, ["short.npy", "(31, 17)"], [*self.data()[:-1], self.file("short")]),
                (3, ["text.npy", "(31, 17)"], [*self.data()[:-1], self.file("text")]),
                (3, ["rank is 4"], [*self.data(), "--rank", 4]),
                (3, ["cross-entropy"], [*self.data(values=True), "--start", "cross-entropy"])):
            for ranks in (0, 2):
                with self.subTest(texts=texts, ranks=ranks):
                    self.assert_error(run("attention", *arguments, "--quiet", ranks=ranks), code, *texts)
        self.assert_error(run("evaluate", *self.data(), "--X", self.file("F")), 3, "X is 31 x 17")
        self.assert_error(run("evaluate", *self.data()), 2, "--X is needed")


class ExampleTest(CommandLineTest):
    def script(self, command, **options):
        environment = {**os.environ, "PATH": f"{pathlib.Path(PROGRAM).parent}:{os.environ['PATH']}"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=200,
                                **options)
        self.assertEqual(0, result.returncode, f"{command}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def test_attention_head(self):
        small = ["--ranks", "2", "--dimensions", "6", "--head", "2", "--tokens", "40", "--sequences", "2"]
        table = self.script([sys.executable, SOURCE_DIR / "examples" / "attention_head.py", "--program", PROGRAM,
                             "--mpirun", MPIRUN, *small]).splitlines()
        self.assertEqual(["random", "words"], [line.split()[0] for line in table[1:]])
        for line in table[1:]:
            self.assertIn("converged", line)
            self.assertLess(float(line.split()[-1]), 1e-6)

    def test_tutorial(self):
        page = (SOURCE_DIR / "docs" / "tutorial-attention.md").read_text()
        blocks = re.findall(r"```(python|sh)\n(.*?)```", page, re.DOTALL)
        self.assertEqual(6, len(blocks))
        for language, block in blocks:
            self.script([sys.executable, "-c", block] if language == "python" else ["sh", "-e", "-c", block],
                        cwd=self.directory)
        for name in ("one", "head", "layer", "joint"):
            with self.subTest(run=name):
                self.assertLess(read_json(self.directory / name / "run.json")["summary"]["relative_error"], 1e-8)


if __name__ == "__main__":
    unittest.main()
