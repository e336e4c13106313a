"""The words of a result: what it is worth, and after each end with code 4 what to do next, which then helps."""

import pathlib
import re
import unittest

import numpy as np

from command_line import CommandLineTest, read_json, run, softmax


def line_of(page, label):
    found = re.findall(rf"(?m)^  {re.escape(label)} +(.*)$", page)
    return found[0] if len(found) == 1 else found


class VerdictTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(80, 4)
        self.data = ["solve", self.path("A"), self.path("b"), "--weight", "1e-3", "--method", "newton", "--start", "zero"]
        self.out = self.directory / "run"

    def path(self, name):
        return self.directory / f"{name}.npy"

    def verdict(self, *arguments, code=4, ranks=0):
        """That of the page, which run.json has, too."""
        result = run(*arguments, ranks=ranks)
        self.assert_code(code, result)
        verdict = line_of(result.stdout, "verdict")
        directory = dict(zip(arguments, arguments[1:])).get("-o")
        if directory and isinstance(verdict, str):
            self.assertEqual(verdict, read_json(pathlib.Path(directory) / "run.json")["summary"]["verdict"])
        return verdict

    def test_iteration_limit(self):
        for ranks in (0, 3):
            verdict = self.verdict(*self.data, "--max-iterations", 1, ranks=ranks)
            self.assertIn("raise --max-iterations, now 1; with -o DIR", verdict)
            out = self.directory / f"run{ranks}"
            verdict = self.verdict(*self.data, "--max-iterations", 1, "-o", out, ranks=ranks)
            start = re.search("go on from it with --start (.*)", verdict)[1]
            self.assertEqual(str(out / "x.npy"), start)
            self.assert_code(0, run(*self.data[:-1], start, ranks=ranks))

    def test_time_limit(self):
        self.assertIn("with -o DIR `attnreg resume DIR`", self.verdict(*self.data, "--time-limit", "1e-9"))
        verdict = self.verdict(*self.data, "--time-limit", "1e-9", "-o", self.out)
        self.assertIn("raise --time-limit, now 1e-9 s, or go on with", verdict)
        words = re.search("`attnreg (.*)`", verdict)[1].split()
        self.assertEqual(["resume", str(self.out)], words)
        self.assert_code(0, run(*words, "--time-limit", 100))

    def test_uncertified(self):
        verdict = self.verdict(*self.data, "--epsilon", "1e-300", "-o", self.out)
        self.assertIn("a larger --epsilon", verdict)
        self.assert_code(0, run(*self.data, "--epsilon", "1e-3"))

    def test_no_minimiser(self):
        np.save(self.path("A"), np.array([[1.0], [-1.0], [2.0]]))
        np.save(self.path("b"), np.array([0.0, 0.0, 1.0]))
        verdict = self.verdict("solve", self.path("A"), self.path("b"), "--weight", 0, "--loss", "cross-entropy",
                               "--certificate", "full")
        self.assertIn("raise --weight", verdict)
        self.assert_code(0, run("solve", self.path("A"), self.path("b"), "--weight", 0.1, "--loss", "cross-entropy"))

    def test_several_results(self):
        """A line for each reason, with how many ended by it."""
        A = np.load(self.path("A"))
        np.save(self.path("B"), np.stack([softmax(s * A[:, 0]) for s in (0, 0.5, 1)], axis=1))
        several = ["solve", self.path("A"), "--targets", self.path("B"), "--start", "zero", "--method", "newton"]
        verdict = self.verdict(*several, "--max-iterations", 1)
        self.assertRegex(verdict, r"^\d targets? of 3, iteration_limit: .*raise --max-iterations, now 1")
        self.assertEqual([], self.verdict(*several, code=0))
        path = run(*self.data[:3], "--weights-path", "1e-2:1e-4:3", "--max-iterations", 1)
        self.assert_code(4, path)
        self.assertRegex(path.stdout, r"NOT converged, \d weights? of 3, iteration_limit: .*raise --max-iterations")
        path = run(*self.data[:3], "--weights-path", "1e-2:1e-4:3", "--time-limit", "1e-9", "-o", self.out)
        self.assert_code(4, path)
        self.assertRegex(path.stdout, "NOT solved, time limit: .*raise --time-limit, now 1e-9 s, or go on with `attnreg")

    def test_a_regression(self):
        result = run(*self.data, "--certificate", "full", "-o", self.out)
        self.assert_code(0, result)
        summary = read_json(self.out / "run.json")["summary"]
        for name in ("verdict", "reading"):
            self.assertEqual(line_of(result.stdout, name), summary[name])
        self.assertIn("x is a local minimum", summary["verdict"])


class AttentionVerdictTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(7)
        T = generator.standard_normal((14, 3))
        F = np.apply_along_axis(softmax, 1, T @ generator.standard_normal((3, 3)) @ T.T)
        noisy = F * np.exp(0.3 * generator.standard_normal(F.shape))
        for name, array in (("T", T), ("F", F), ("N", noisy / noisy.sum(axis=1, keepdims=True)), ("V", T[:, :2]),
                            ("O", F @ T[:, :2] @ generator.standard_normal((2, 4)))):
            np.save(self.path(name), array)
        self.out = self.directory / "run"
        self.data = ["attention", "--queries", self.path("T"), "--keys", self.path("T"), "--target"]

    def path(self, name):
        return self.directory / f"{name}.npy"

    def words(self, *arguments, code=0, ranks=0):
        result = run(*self.data, *arguments, "-o", self.out, "--force", ranks=ranks)
        self.assert_code(code, result)
        summary = read_json(self.out / "run.json")["summary"]
        for name in ("verdict", "reading"):
            self.assertEqual(line_of(result.stdout, name), summary[name])
        return summary["verdict"], summary["reading"]

    def test_the_iteration_on_x(self):
        for ranks in (0, 2):
            verdict, reading = self.words(self.path("F"), "--certificate", "full", ranks=ranks)
            self.assertIn("X is a local minimum of L", verdict)
            self.assertIn("F reproduces B almost exactly", reading)
        verdict, _ = self.words(self.path("N"))
        self.assertIn("--certificate full says which kind", verdict)
        verdict, _ = self.words(self.path("N"), "--form", "cross-entropy", "--start", "zero")
        self.assertIn("convex in X", verdict)
        verdict, _ = self.words(self.path("N"), "--rank", 2)
        self.assertIn("(P, Q)", verdict)
        verdict, reading = self.words(self.path("O"), "--values", self.path("V"), "--method", "joint")
        self.assertIn("(X, Y)", verdict)
        self.assertIn("F A3 Y reproduces B", reading)

    def test_a_limit_says_how_to_go_on(self):
        verdict, _ = self.words(self.path("N"), "--max-iterations", 1, "--start", "zero", code=4)
        start = re.search("go on from it with --start (.*)", verdict)[1]
        self.assertEqual(str(self.out), start)
        self.assert_code(0, run(*self.data, self.path("N"), "--start", start))

    def test_heads_and_layers(self):
        verdict, reading = self.words(self.path("F"), "--form", "log-odds")
        self.assertIn("--holdout shows whether it predicts", verdict)
        self.assertIn("F reproduces B almost exactly", reading)
        heads = np.stack([np.load(self.path("F")), np.load(self.path("N"))])
        np.save(self.path("H"), heads)
        verdict, _ = self.words(self.path("H"), "--rank", 3)
        self.assertIn("--holdout", verdict)
        verdict, reading = self.words(self.path("O"), "--values", self.path("V"), "--starts", 0)
        self.assertIn("(X, Y)", verdict)
        self.assertIn("F A3 Y reproduces B", reading)


if __name__ == "__main__":
    unittest.main()
