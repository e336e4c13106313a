"""attention of several heads: one file for all, a table, biases, parts of arrays."""

import unittest

import numpy as np

from command_line import CommandLineTest, read_json, run


def softmax_rows(Z):
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


class ManyHeadsTest(CommandLineTest):
    """Three planted heads of a layer with inputs of 10 columns, 6 sequences of 40 tokens and 2 held out."""

    RANKS = (3, 3, 2)

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(7)
        self.P, self.Q = ([generator.standard_normal((10, r)) / 4 for r in self.RANKS] for _ in range(2))
        self.bias_of_queries, self.bias_of_keys = generator.standard_normal((2, 3))
        self.inputs = [generator.standard_normal((40, 10)) for _ in range(8)]
        for name, part in (("train", self.inputs[:6]), ("test", self.inputs[6:])):
            lines = ""
            for k, x in enumerate(part):
                np.save(self.directory / f"{name}-x{k}.npy", x)
                F = np.stack([softmax_rows(x @ P @ Q.T @ x.T) for P, Q in zip(self.P, self.Q)])
                np.save(self.directory / f"{name}-F{k}.npy", F.astype("f4"))
                lines += f"{name}-x{k}.npy {name}-x{k}.npy {name}-F{k}.npy\n"
            (self.directory / f"{name}.txt").write_text(lines)

    def recover(self, *options, ranks=0, name="run", code=0, sequences="train.txt"):
        out = self.directory / name
        result = run("attention", "--sequences", self.directory / sequences, *options, "-o", out, "--force",
                     ranks=ranks)
        self.assert_code(code, result)
        return out, read_json(out / "run.json"), result.stdout

    def list_of(self, target):
        """The sequences of the fit with other targets, a format of the number."""
        (self.directory / "other.txt").write_text(
            "".join(f"train-x{k}.npy train-x{k}.npy {target.format(k)}\n" for k in range(6)))
        return "other.txt"

    def test_all_at_once(self):
        for ranks in (1, 3):
            out, report, page = self.recover("--holdout", self.directory / "test.txt", ranks=ranks)
            self.assertEqual(list(self.RANKS), [head["rank"] for head in report["heads"]])
            self.assertEqual(["predicts"] * 3, [head["verdict"] for head in report["heads"]])
            self.assertLess(max(head["held_out"]["all"]["error"] for head in report["heads"]), 1e-5)
            self.assertIn("recovered, 3 heads", page)
            self.assertIn("singular values", page)
            P, Q = np.load(out / "P.npy"), np.load(out / "Q.npy")
            self.assertEqual(((3, 10, 3), (3, 10, 3)), (P.shape, Q.shape))
            self.assertFalse(np.any(P[2, :, 2]))  # of rank 2
            self.assertFalse((out / "X.npy").exists())
            for h in range(3):
                np.testing.assert_allclose(P[h] @ Q[h].T, self.P[h] @ self.Q[h].T, atol=1e-5)
        out, *_ = self.recover("--write-x", "--split", "orthogonal", ranks=2)
        again, X = np.load(out / "P.npy"), np.load(out / "X.npy")
        self.assertEqual((3, 10, 10), X.shape)
        np.testing.assert_allclose(again @ np.load(out / "Q.npy").transpose(0, 2, 1), X, atol=1e-12)
        K = np.concatenate([x - x.mean(axis=0) for x in self.inputs[:6]])
        of_keys = K @ np.load(out / "Q.npy")[0]
        np.testing.assert_allclose(of_keys.T @ of_keys, np.eye(3), atol=1e-8)

    def test_one_of_them(self):
        """A part of an array is a matrix like another; types of files and of memory."""
        _, all_heads, _ = self.recover(ranks=2)
        error = all_heads["heads"][1]["relative_error"]
        out, report, _ = self.recover("--form", "cross-entropy", "--split", "sqrt", ranks=2,
                                      sequences=self.list_of("train-F{}.npy[1]"))
        self.assertEqual((3, "gap"), (report["head"]["rank"], report["head"]["rank_source"]))
        self.assertLess(report["head"]["relative_error"], 2 * error)
        np.testing.assert_allclose(np.load(out / "X.npy"), self.P[1] @ self.Q[1].T, atol=1e-5)
        self.assertTrue(report["inputs"]["target 0"]["path"].endswith("F0.npy[1]"))
        for storage in ("float", "double"):
            _, report, _ = self.recover("--storage", storage, ranks=2, sequences="other.txt")
            self.assertLess(report["head"]["relative_error"], 2 * error)
        for k in range(6):
            F = np.load(self.directory / f"train-F{k}.npy")
            np.save(self.directory / f"half{k}.npy", F[None].astype("f2"))
        _, report, _ = self.recover(ranks=2, sequences=self.list_of("half{}.npy[0]"))
        self.assertEqual([3, 3, 2], [head["rank"] for head in report["heads"]])
        self.assertLess(max(head["relative_error"] for head in report["heads"]), 2e-3)  # 2^-11 of each number
        _, report, _ = self.recover("--storage", "double", sequences=self.list_of("half{}.npy[0,2]"))
        self.assertEqual(2, report["head"]["rank"])

    def test_any_x(self):
        out, report, page = self.recover("--rank", "full", "--holdout", "0.3", ranks=2)
        self.assertEqual([0, 0, 0], [head["rank"] for head in report["heads"]])
        self.assertEqual((3, 10, 10), np.load(out / "X.npy").shape)
        self.assertFalse((out / "P.npy").exists())
        self.assertLess(max(head["held_out"]["all"]["error"] for head in report["heads"]), 1e-2)
        self.assertIn("by hold-out: ridge", page)

    def test_bias(self):
        for k, x in enumerate(self.inputs[:6]):
            Z = (x @ self.P[0] + self.bias_of_queries) @ (x @ self.Q[0] + self.bias_of_keys).T
            np.save(self.directory / f"biased{k}.npy", softmax_rows(Z).astype("f4"))
        sequences = self.list_of("biased{}.npy")
        _, without, page = self.recover("--split", "sqrt", sequences=sequences)
        self.assertGreater(without["head"]["relative_error"], 1e-2)
        self.assertIn("--bias query", page)
        for bias, shape in (("query", (11, 10)), ("both", (11, 11))):
            out, report, page = self.recover("--bias", bias, ranks=2, sequences=sequences)
            X = np.load(out / "X.npy")
            self.assertEqual((3, shape), (report["head"]["rank"], X.shape))
            self.assertLess(report["head"]["relative_error"], 1e-6)
            np.testing.assert_allclose(X[:10, :10], self.P[0] @ self.Q[0].T, atol=1e-5)
            np.testing.assert_allclose(X[10, :10], self.Q[0] @ self.bias_of_queries, atol=1e-5)
            self.assertIn("the bias of the queries", page)
        np.testing.assert_allclose(np.load(out / "Q.npy")[10], 0, atol=1e-12)  # the keys' bias: least norm
        self.assertIn("softmax does not see", page)
        _, report, page = self.recover("--bias", "key", sequences=sequences)
        self.assertGreater(report["head"]["relative_error"], 1e-2)

    def test_wrong_input(self):
        F = np.load(self.directory / "train-F0.npy")
        for name, array in (("two", F[:2]), ("none", F[:0]), ("four", F[None])):
            np.save(self.directory / f"{name}.npy", array)
        for target, texts in (("train-F0.npy[3]", ["F0.npy[3]", "(3, 40, 40)", "no part 3 of 3"]),
                              ("train-F0.npy[0,1,2]", ["fewer places"]),
                              ("two.npy", ["two.npy", "(2, 40, 40)", "same heads"]),
                              ("train-F1.npy[0]", ["same heads"]), ("none.npy", ["at least one"]),
                              ("train-F0.npy[x]", ["cannot open"]), ("four.npy", ["(1, 3, 40, 40)"])):
            with self.subTest(target=target):
                first = "train-x1.npy train-x1.npy train-F1.npy\n" if "same heads" in texts else ""
                (self.directory / "other.txt").write_text(first + f"train-x0.npy train-x0.npy {target}\n")
                self.assert_error(run("attention", "--sequences", self.directory / "other.txt", ranks=2), 3, *texts)
        for options, text in ((("--start", "zero"), "--start"), (("--form", "exp"), "--form exp"),
                              (("--bias", "all"), "--bias"), (("--storage", "half"), "--storage")):
            self.assert_error(run("attention", "--sequences", self.directory / "train.txt", *options), 2, text)
        self.list_of("train-F{}.npy[0]")
        self.assert_error(run("attention", "--sequences", self.directory / "other.txt", "--holdout",
                              self.directory / "test.txt"), 3, "test-F0.npy", "same heads")


if __name__ == "__main__":
    unittest.main()
