"""The command sparsify: what it writes, and the figures that it prints, against NumPy."""

import json
import unittest

import numpy as np
import scipy.linalg

from command_line import CommandLineTest, ErrorTest, read_json, run
from test_sparse import csr_arrays

METHODS = ("leverage", "bss", "uniform", "norm", "jl", "topk")


def attention(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def plain_errors(X, Y, V, scale=1.0):
    """The errors of report.json by their definitions; X of full rank."""
    K, K_Y = scale * X @ X.T, scale * Y @ Y.T
    P, P_Y, r = attention(K), attention(K_Y), abs(K).max()
    L = np.linalg.inv(np.linalg.cholesky(K))
    spectral = abs(np.linalg.eigvalsh(L @ K_Y @ L.T) - 1).max()
    return {"gram": abs(K_Y - K).max() / r, "spectral": spectral, "entry": abs(P_Y / P - 1).max(),
            "entry_bound": np.expm1(2 * spectral * r), "output": np.linalg.norm((P_Y - P) @ V) / np.linalg.norm(P @ V)}


class SparsifyTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.generator = np.random.default_rng(7)
        self.X = self.generator.standard_normal((8, 900)) / 50
        self.path = self.directory / "X.npy"
        np.save(self.path, self.X)

    def sparsify(self, *options, path=None, ranks=0, code=0):
        """The directory that was written and the report in it."""
        out = self.directory / f"Y{len(list(self.directory.iterdir()))}"
        self.assert_code(code, run("sparsify", path or self.path, *options, "-o", out, ranks=ranks))
        return out, read_json(out / "report.json")

    def test_what_every_method_writes(self):
        for method in METHODS:
            out, report = self.sparsify("--method", method, "--columns", 70, ranks=3)
            Y = np.load(out / "Y.npy")
            self.assertEqual("attnreg-sparsify-1", report["schema"])
            self.assertEqual((8, report["columns"]), Y.shape)
            if method == "jl":
                self.assertFalse((out / "columns.npy").exists())
                continue
            columns, weights = np.load(out / "columns.npy"), np.load(out / "weights.npy")
            self.assertEqual(np.int64, columns.dtype)
            self.assertTrue((np.diff(columns) > 0).all())
            np.testing.assert_allclose(Y, self.X[:, columns] * np.sqrt(weights), rtol=1e-15)
            if method == "topk":
                largest = np.sort(np.argsort(-np.linalg.norm(self.X, axis=0))[:70])
                np.testing.assert_array_equal(largest, columns)

    def test_errors_are_their_definitions(self):
        V = self.generator.standard_normal((8, 2))
        np.save(self.directory / "V.npy", V)
        for name, scale, ranks in (("1", 1.0, 0), ("1/d", 1 / 900, 3), ("1/sqrt-d", 1 / 30, 2)):
            out, report = self.sparsify("--method", "norm", "--columns", 60, "--scale", name, "--values",
                                        self.directory / "V.npy", ranks=ranks)
            for key, Y in (("Y", np.load(out / "Y.npy")), ("zero", np.zeros((8, 1)))):
                for figure, value in plain_errors(self.X, Y, V, scale).items():
                    # NumPy's own entries lose digits where P(Y) / P(X) is near 1.
                    self.assertAlmostEqual(value, report["errors"][key][figure], delta=1e-9 * value + 1e-13)
            self.assertAlmostEqual(scale * abs(self.X @ self.X.T).max(), report["largest_logit"], places=12)

    def test_bss_is_the_same_on_any_number_of_ranks(self):
        one, report = self.sparsify("--method", "bss", "--epsilon", 0.4)
        self.assertEqual("reached", report["end"])
        self.assertLessEqual(report["epsilon"], 0.4)
        self.assertAlmostEqual(report["certified_epsilon"], report["errors"]["Y"]["spectral"], places=10)
        self.assertLessEqual(report["columns"], np.ceil(((1 + np.sqrt(1 - 0.16)) / 0.4) ** 2 * 8))
        for ranks in (2, 3, 4):
            other, _ = self.sparsify("--method", "bss", "--epsilon", 0.4, ranks=ranks)
            for name in ("Y.npy", "columns.npy", "weights.npy"):
                self.assertEqual((one / name).read_bytes(), (other / name).read_bytes())

    def test_the_same_from_every_kind_of_file(self):
        X = np.where(self.generator.random((8, 900)) < 0.3, self.X, 0)
        np.save(self.directory / "C.npy", X)
        np.save(self.directory / "F.npy", np.asfortranarray(X))
        np.savez(self.directory / "csr.npz", **csr_arrays(X))
        transposed = csr_arrays(np.ascontiguousarray(X.T))
        np.savez_compressed(self.directory / "csc.npz", **{**transposed, "format": np.array(b"csc"),
                                                           "shape": np.array(X.shape)})
        for ranks in (0, 3):
            chosen = []
            for name in ("C.npy", "F.npy", "csr.npz", "csc.npz"):
                out, _ = self.sparsify("--method", "bss", path=self.directory / name, ranks=ranks)
                chosen.append([(out / file).read_bytes() for file in ("columns.npy", "weights.npy")])
                if name.endswith("npz"):
                    arrays = np.load(out / "Y.npz")
                    self.assertEqual(b"csc", arrays["format"].item())
                    Y = np.zeros(arrays["shape"])
                    for k, (begin, end) in enumerate(zip(arrays["indptr"], arrays["indptr"][1:])):
                        Y[arrays["indices"][begin:end], k] = arrays["data"][begin:end]
                    columns, weights = np.load(out / "columns.npy"), np.load(out / "weights.npy")
                    np.testing.assert_allclose(Y, X[:, columns] * np.sqrt(weights), rtol=1e-15)
            self.assertEqual([chosen[0]] * 4, chosen)

    def test_uniform_fails_on_heavy_columns(self):
        """Most of X X^T is in 9 of 900 columns: as many uniform draws as leverage keeps find none or few of them."""
        self.X[:, ::100] *= 300
        np.save(self.path, self.X)
        _, report = self.sparsify("--method", "leverage", "--columns", 60)
        errors = report["errors"]
        self.assertGreater(errors["uniform"]["spectral"], 2 * errors["Y"]["spectral"])
        self.assertGreater(errors["uniform"]["output"], errors["Y"]["output"])
        self.assertEqual(1, errors["zero"]["spectral"])
        self.assertIn("Y is of use", report["verdict"])

    def test_worthless(self):
        """K is near 0.36 I; one draw makes it 900 x x^T with 900 |x|^2 near 2.9: farther from K than 0 is."""
        result = run("sparsify", self.path, "--method", "uniform", "--columns", 1)
        self.assert_code(0, result)
        self.assertIn("worthless", result.stdout)

    def test_codes_and_output(self):
        result = run("sparsify", self.path, "--json", "--metrics", "none", ranks=2)
        self.assert_code(0, result)
        report = json.loads(result.stdout)
        self.assertNotIn("errors", report)
        self.assertIsNone(report["epsilon"])
        self.assertFalse((self.directory / "report.json").exists())
        # About one column a direction: nothing is promised, and it is not near.
        _, report = self.sparsify("--columns", 9)
        self.assertIsNone(report["within_epsilon"])
        self.assertGreater(report["epsilon"], 0.5)
        # Scores from one JL column are off by far more than a factor of 2, which a delta near 1 does not cover.
        _, report = self.sparsify("--epsilon", 0.02, "--delta", 0.999, "--draws", "replacement", "--jl-columns", 1,
                                  code=4)
        self.assertIs(False, report["within_epsilon"])
        self.assertIn("NOT within epsilon", report["verdict"])

    def test_bss_of_rows_in_other_units(self):
        X = np.random.default_rng(9).standard_normal((4, 120))
        np.save(self.directory / "units.npy", np.array([[1], [1e-9], [1e9], [1]]) * X)
        for ranks in (1, 3):
            out = self.directory / f"units{ranks}"
            self.assert_code(0, run("sparsify", self.directory / "units.npy", "--method", "bss", "--metrics", "none", "-o",
                                    out, ranks=ranks))
            Y = X[:, np.load(out / "columns.npy")] * np.sqrt(np.load(out / "weights.npy"))
            values = scipy.linalg.eigh(Y @ Y.T, X @ X.T, eigvals_only=True)
            self.assertAlmostEqual(np.abs(values - 1).max(), read_json(out / "report.json")["certified_epsilon"], places=6)

    def test_zero_and_large(self):
        np.save(self.path, np.zeros((3, 50)))
        for method in METHODS:
            out, report = self.sparsify("--method", method, "--columns", 10)
            self.assertEqual(0, report["errors"]["Y"]["output"])
            self.assertFalse(np.load(out / "Y.npy").any())
        np.save(self.path, 1e3 * self.X)
        for method in ("leverage", "bss"):
            self.sparsify("--method", method, "--columns", 50)


class TokensTest(CommandLineTest):
    """Two heads whose keys lie in clusters."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(3)
        cluster = generator.integers(0, 8, (2, 300))
        self.K, self.V = (generator.standard_normal((2, 8, d))[np.arange(2)[:, None], cluster]
                          + 0.1 * generator.standard_normal((2, 300, d)) for d in (6, 3))
        self.Q = generator.standard_normal((2, 200, 6))
        for name in "QKV":
            np.save(self.directory / f"{name}.npy", getattr(self, name))

    def tokens(self, *options, index="", ranks=0):
        out = self.directory / f"kept{len(list(self.directory.iterdir()))}"
        files = (word for option, name in (("--queries", "Q"), ("--keys", "K"), ("--values", "V"))
                 for word in (option, f"{self.directory / name}.npy{index}"))
        result = run("sparsify", "--tokens", *files, *options, "-o", out, ranks=ranks)
        self.assert_code(0, result)
        return out, read_json(out / "report.json"), result.stdout

    def outputs(self, head, keys, weights, causal, scale):
        Z = scale * self.Q[head] @ self.K[head].T
        if causal:
            Z[np.triu_indices(200, 101, 300)] = -np.inf
        exact, kept = np.exp(Z), np.exp(Z[:, keys]) * weights
        sums = kept.sum(1, keepdims=True)
        return (exact / exact.sum(1, keepdims=True) @ self.V[head],
                np.where(sums > 0, kept @ self.V[head][keys] / np.where(sums > 0, sums, 1), 0))

    def test_files_and_errors(self):
        for ranks, method, mask, scale in ((0, "halving", "none", "1/sqrt-d"), (3, "mixed", "causal", "1"),
                                           (2, "topk", "none", "1/d"), (4, "output", "none", "1")):
            out, report, page = self.tokens("--method", method, "--keep", 24, "--mask", mask, "--scale", scale,
                                            "--keep-first", 1, ranks=ranks)
            keys, weights, offsets = (np.load(out / f"{name}.npy") for name in ("keys", "weights", "offsets"))
            self.assertEqual((np.int64, np.int64), (keys.dtype, offsets.dtype))
            self.assertEqual((3, 0, len(keys), len(keys)), (len(offsets), offsets[0], offsets[-1], report["kept"]))
            squares = np.zeros(2)
            for head in range(2):
                part = slice(offsets[head], offsets[head + 1])
                self.assertEqual(0, keys[part][0])
                self.assertTrue((np.diff(keys[part]) > 0).all())
                O, found = self.outputs(head, keys[part], weights[part], mask == "causal",
                                        {"1": 1, "1/d": 1 / 6, "1/sqrt-d": 6 ** -0.5}[scale])
                error = np.linalg.norm(found - O) / np.linalg.norm(O)
                self.assertAlmostEqual(error, report["by_head"][head]["errors"][0]["output"], delta=1e-12)
                squares += np.square([np.linalg.norm(found - O), np.linalg.norm(O)])
            self.assertAlmostEqual(np.sqrt(squares[0] / squares[1]), report["errors"][0]["output"], delta=1e-12)
            self.assertEqual(["chosen", "mean", "uniform", "recent", "topk", "hyperattention", "kdeformer"],
                             [error["name"] for error in report["errors"]])
            self.assertIn("drawn uniformly", page)
            if method == "halving":
                self.assertLess(report["errors"][0]["output"], 0.2 * report["errors"][2]["output"])
                self.assertIn("of use", report["verdict"])

    def test_the_same_on_any_number_of_ranks_and_each_head_alone(self):
        files = ("keys.npy", "weights.npy", "offsets.npy")
        options = ("--keep", 30, "--scale", "1/d")  # small logits: the bound is finite
        one, report, _ = self.tokens(*options)
        for ranks in (2, 3, 4):
            other, again, _ = self.tokens(*options, ranks=ranks)
            self.assertEqual([(one / name).read_bytes() for name in files],
                             [(other / name).read_bytes() for name in files])
            self.assertAlmostEqual(report["bound"]["largest"], again["bound"]["largest"],
                                   delta=1e-6 * report["bound"]["largest"])
        alone, _, _ = self.tokens(*options, index="[1]", ranks=2)
        offsets = np.load(one / "offsets.npy")
        np.testing.assert_array_equal(np.load(one / "keys.npy")[offsets[1]:], np.load(alone / "keys.npy"))

    def test_values_of_any_size(self):
        generator = np.random.default_rng(8)
        for name, rows in (("q", 9), ("k", 20), ("v", 20)):
            np.save(self.directory / f"{name}.npy", generator.standard_normal((rows, 3)))
        V = np.load(self.directory / "v.npy")
        found = []
        for scale in (1, 2.0 ** 660, 2.0 ** -900, 2.0 ** 70, 2.0 ** -70):
            np.save(self.directory / "v.npy", scale * V)
            out = self.directory / f"scaled{len(found)}"
            self.assert_code(0, run("sparsify", "--tokens", "--queries", self.directory / "q.npy", "--keys",
                                    self.directory / "k.npy", "--values", self.directory / "v.npy", "--keep", 5, "-o", out,
                                    ranks=len(found) % 4 + 1))
            report = read_json(out / "report.json")
            found.append((np.load(out / "keys.npy").tolist(), np.load(out / "weights.npy"), report["errors"][0]["output"]))
        for keys, weights, error in found[1:]:
            self.assertEqual(found[0][0], keys)
            np.testing.assert_allclose(weights, found[0][1], rtol=1e-9)
            self.assertAlmostEqual(error, found[0][2], places=9)

    def test_pages_and_other_queries(self):
        np.save(self.directory / "others.npy", np.random.default_rng(8).standard_normal((2, 50, 6)))
        _, report, page = self.tokens("--keep", 30, "--check-queries", self.directory / "others.npy")
        self.assertLess(report["errors"][0]["output"], report["errors"][2]["output"])
        self.assertIn("any query", page)
        _, report, page = self.tokens("--metrics", "none")
        self.assertEqual(150, report["kept"])  # a quarter
        self.assertNotIn("errors", report)
        self.assertIn("was not measured", page)
        _, report, _ = self.tokens("--keep", 300)
        self.assertIn("nothing gained", report["verdict"])
        _, report, _ = self.tokens("--method", "recent", "--keep", 100, "--mask", "causal")
        self.assertEqual(200, report["errors"][0]["blind"])  # query i sees the keys up to i + 100, of 200 to 299
        self.assertIn("see none of the keys", report["verdict"])


class RefusalTest(ErrorTest):
    def test_tokens(self):
        Q, big, heads = (self.directory / f"{name}.npy" for name in ("Q", "big", "heads"))
        np.save(Q, np.ones((8, 3)))
        np.save(big, 1e200 * np.arange(24).reshape(8, 3))
        np.save(heads, np.ones((2, 8, 3)))
        files = ["sparsify", "--tokens", "--queries", Q, "--keys", Q, "--values"]
        self.fails(2, "--queries", arguments=("sparsify", "--tokens", "--keys", Q, "--values", Q))
        self.fails(2, "--keep is for --tokens", arguments=("sparsify", self.A, "--keep", "3"))
        self.fails(2, "halving is for --tokens", arguments=("sparsify", self.A, "--method", "halving"))
        self.fails(2, "bss is for columns of X", arguments=(*files, Q, "--method", "bss"))
        self.fails(2, "--epsilon is for columns of X", arguments=(*files, Q, "--epsilon", "0.5"))
        self.fails(2, "surplus argument", arguments=(*files, Q, self.A))
        self.fails(2, "--check-queries", arguments=(*files, Q, "--mask", "causal", "--check-queries", Q))
        self.fails(3, "2 heads, expected 1", arguments=(*files, heads))
        self.fails(3, "8 keys and 57 values", arguments=(*files, self.A))
        self.fails(3, "more than the 3 that are kept", arguments=(*files, Q, "--keep", "3", "--keep-last", "4"))
        self.fails(3, "none.npy", arguments=(*files, self.directory / "none.npy"))
        self.fails(5, "overflows", arguments=["sparsify", "--tokens", "--queries", big, "--keys", big, "--values", Q])

    def test_refusals(self):
        self.fails(2, "--method", arguments=("sparsify", self.A, "--method", "best"))
        for option, value in (("--epsilon", "0"), ("--epsilon", "1"), ("--delta", "1.5"), ("--columns", "0")):
            self.fails(2, option, arguments=("sparsify", self.A, option, value))
        self.fails(3, "none.npy", arguments=("sparsify", self.directory / "none.npy"))
        self.fails(3, "expected a matrix", arguments=("sparsify", self.b))
        self.fails(3, "V has 57 rows, expected 3", "one per row of X",
                   arguments=("sparsify", self.transposed(), "--values", self.A))
        self.fails(3, "more than the rank",
                   arguments=("sparsify", self.transposed(), "--method", "bss", "--columns", 3))
        self.fails(3, "overflow", arguments=("sparsify", self.huge(), "--method", "bss"))

    def test_finished_run(self):
        arguments = ("sparsify", self.transposed(), "-o", self.out)
        self.assert_code(0, run(*arguments))
        self.fails(6, "report.json exists", "--force", arguments=arguments)
        self.assert_code(0, run(*arguments, "--force"))

    def transposed(self):
        np.save(self.directory / "X.npy", self.array.T)
        return self.directory / "X.npy"

    def huge(self):
        np.save(self.directory / "huge.npy", 1e200 * self.array.T)
        return self.directory / "huge.npy"


if __name__ == "__main__":
    unittest.main()
