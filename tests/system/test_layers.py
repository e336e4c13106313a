"""attention of outputs: X and Y of a layer from several starts, or X alone with a known Y."""

import unittest

import numpy as np

from command_line import CommandLineTest, read_json, read_status, run


class LayerTest(CommandLineTest):
    """Outputs of a planted head: 4 sequences of 48 tokens of 5 columns, X of rank 2, Y of 3 columns."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(3)
        self.X = generator.standard_normal((5, 2)) @ generator.standard_normal((2, 5)) / 4
        self.Y = generator.standard_normal((5, 3))
        np.save(self.file("Y"), self.Y)
        lines = ""
        for k in range(4):
            x = generator.standard_normal((48, 5))
            F = np.exp(x @ self.X @ x.T)
            np.save(self.file(f"x{k}"), x)
            np.save(self.file(f"o{k}"), F / F.sum(axis=1, keepdims=True) @ x @ self.Y)
            lines += f"x{k}.npy x{k}.npy x{k}.npy o{k}.npy\n"
        self.list = self.directory / "list.txt"
        self.list.write_text(lines)
        self.out = self.directory / "run"

    def file(self, name):
        return self.directory / f"{name}.npy"

    def recover(self, *options, ranks=0, code=0):
        result = run("attention", "--sequences", self.list, *options, "-o", self.out, "--force", ranks=ranks)
        self.assert_code(code, result)
        return read_json(self.out / "run.json"), result.stdout

    def assert_found(self, name, expected):
        found = np.load(self.file(f"run/{name}"))
        self.assertLess(np.linalg.norm(found - expected), 1e-7 * np.linalg.norm(expected))

    def test_finds_both(self):
        for options, ranks, first in (((), 0, "random Y"), (("--rank", 2), 2, "random X"),
                                      (("--values-known", self.file("Y")), 3, "X = 0")):
            with self.subTest(options=options, ranks=ranks):
                report, page = self.recover(*options, ranks=ranks)
                self.assertTrue(page.startswith("recovered"), page)
                self.assert_found("X", self.X)
                self.assert_found("Y", self.Y)
                self.assertTrue(report["layer"]["is_exact"])
                self.assertEqual([], report["warnings"])
                self.assertEqual(first, report["layer"]["starts"][0]["start"])
                self.assertEqual("--rank" in options, self.file("run/P").exists())
                self.assertEqual(("done", 0), read_status(self.out))
                self.assertEqual("--values-known" in options, "Y" in report["inputs"])

    def test_claims_nothing_about_noise(self):
        for k in range(4):
            np.save(self.file(f"o{k}"), np.random.default_rng(k).standard_normal((48, 3)))
        report, page = self.recover("--starts", 1, ranks=2)
        self.assertTrue(page.startswith("converged"), page)
        self.assertIn("unless that is the noise of B, it is a local minimum", page)
        self.assertEqual(2, len(report["layer"]["starts"]))

    def test_options_that_do_not_belong(self):
        given = ["--values-known", self.file("Y")]
        for code, texts, options in (
                *((2, [option[0], "values"], option) for option in
                  (["--holdout", "0.5"], ["--weight", "1"], ["--bias", "query"], ["--split", "sqrt"], ["--write-x"],
                   ["--storage", "float"])),
                (2, ["--values-known", "--method"], [*given, "--method", "joint"]),
                (3, ["Y is 48 x 5, expected 5 x 3"], ["--values-known", self.file("x0")]),
                (3, ["cannot open"], ["--values-known", self.file("none")])):
            with self.subTest(texts=texts):
                self.assert_error(run("attention", "--sequences", self.list, *options, "-q", ranks=2), code, *texts)
        self.list.write_text("x0.npy x0.npy o0.npy\n")
        self.assert_error(run("attention", "--sequences", self.list, *given), 2, "--values-known", "values")


if __name__ == "__main__":
    unittest.main()
