"""experiment gnn-features and polynomial on files, and apply --sketch, end to end, beside NumPy."""

import json
import unittest

import numpy as np
import scipy.sparse as sparse

from command_line import CommandLineTest, ErrorTest, run


class GraphNetworkTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        draw = np.random.default_rng(4)
        G = sparse.random(90, 90, 0.05, random_state=5, format="csr")
        self.G = G + G.T
        self.H, self.W = draw.standard_normal((90, 11)), [draw.standard_normal((11, 6)), draw.standard_normal((6, 3))]
        self.a = [draw.standard_normal((2, 6)), draw.standard_normal((2, 3))]
        sparse.save_npz(self.directory / "G.npz", self.G.tocsr())
        self.save(H=self.H, dense=self.G.toarray(), W0=self.W[0], W1=self.W[1], a0=self.a[0], a1=self.a[1])
        self.layers = f"{self.path('W0')},{self.path('W1')}"

    def save(self, **arrays):
        for name, array in arrays.items():
            np.save(self.path(name), array)

    def path(self, name):
        return self.directory / f"{name}.npy"

    def infer(self, attention, linear_end=False):
        G, H = self.G.toarray() + np.eye(90), self.H
        root = G.sum(axis=1) ** -0.5
        for k, W in enumerate(self.W):
            S, Z = root[:, None] * G * root, H @ W
            if attention:
                logits = (Z @ self.a[k][0])[:, None] + Z @ self.a[k][1]
                S = (G != 0) * np.exp(np.where(logits < 0, 0.2 * logits, logits))
                S /= S.sum(axis=1, keepdims=True)
            H = S @ Z
            if not (linear_end and k == 1):
                H = np.maximum(H, 0)
        return H

    def test_inference(self):
        attention = f"{self.path('a0')},{self.path('a1')}"
        for ranks, graph, options in ((0, self.directory / "G.npz", ()), (2, self.directory / "G.npz", ("--messages",)),
                                      (3, self.path("dense"), ("--attention", attention, "--linear-end"))):
            out = self.directory / f"out{ranks}"
            result = run("experiment", "gnn-features", graph, self.path("H"), "--layers", self.layers, "--blocks", "4,1",
                         "--repeats", 1, *options, "-o", out, "--json", ranks=ranks)
            self.assert_code(0, result)
            with_attention = "--attention" in options
            expected = self.infer(with_attention, with_attention)
            np.testing.assert_allclose(np.load(out / "H_out.npy"), expected, rtol=0, atol=1e-11 * abs(expected).max())
            table = json.loads(result.stdout)["tables"][0]
            rows = [dict(zip(table["columns"], row)) for row in table["rows"]]
            self.assertEqual([(4, 0), (1, 0), (4, 1), (1, 1)] + [(0, 0)] * ("--messages" in options),
                             [(row["blocks"], row["tiles"]) for row in rows])
            self.assertLess(max(row["difference"] for row in rows), 1e-12)
            self.assertLess(rows[0]["held_mb"], rows[1]["held_mb"])
            self.assertTrue((out / "gnn-features.csv").exists())

    def test_a_graph_that_is_made(self):
        for ranks in (0, 4):
            out = self.directory / f"made{ranks}"
            self.assert_code(0, run("experiment", "gnn-features", "--nodes", 300, "--features", 8, "--layer-widths", "5,2",
                                    "--attention", "random", "--blocks", 2, "--repeats", 1, "-o", out, ranks=ranks))
        np.testing.assert_allclose(*(np.load(self.directory / f"made{ranks}" / "H_out.npy") for ranks in (0, 4)),
                                   rtol=0, atol=1e-12)
        for ranks in (0, 3):
            self.assert_error(run("experiment", "gnn-features", "--nodes", 2147483647, "--node-degree", 100000, ranks=ranks),
                              7, "a graph of 2147483647 nodes")


class PolynomialTest(CommandLineTest):
    def rows(self, *words, ranks=0):
        result = run("experiment", "polynomial", *words, "--json", ranks=ranks)
        self.assert_code(0, result)
        tables = json.loads(result.stdout)["tables"]
        self.assertEqual(1, len(tables))
        return [dict(zip(tables[0]["columns"], row)) for row in tables[0]["rows"]]

    def test_own_parameters(self):
        for ranks in (0, 3):
            rows = self.rows("--n", 60, "--d", 8, "--a0", 0.01, "--a1", 2, "--b", 0.1, "--c", 0.3, "--theta", 0.2,
                             "--degrees", "1,3,7", "--draws", 5, ranks=ranks)
            self.assertEqual([1, 3, 7], [row["degree"] for row in rows])
            rho, kappa = (4 + 0.01 + 0.09) / 0.09, 0.1 / 0.09
            for row in rows:
                share = rho ** row["degree"] / (rho ** row["degree"] + 9 * kappa ** row["degree"] + 50)
                self.assertAlmostEqual(share, row["share"], places=12)
                self.assertAlmostEqual(2 * share + 0.1 - 0.2, row["margin1"], places=12)

    def test_negative_entries(self):
        for row in self.rows("--n", 12, "--d", 6, "--a1", -2, "--b", -0.1, "--degrees", "2,4", "--draws", 2):
            self.assertAlmostEqual(row["margin1"], row["closed_margin1"], places=12)

    def test_own_sets(self):
        draw = np.random.default_rng(6)
        sets = [draw.standard_normal((size, 4)) for size in (30, 50)]
        sets[1][7] *= 6
        paths = []
        for k, tokens in enumerate(sets):
            paths.append(self.directory / f"D{k}.npy")
            np.save(paths[-1], tokens)
        for ranks in (0, 3):
            rows = self.rows(*paths, "--degrees", "2,6", "--c", 1, "--theta", 0.5, "--draws", 3, ranks=ranks)
            for row in rows:
                margins = []
                for tokens in sets:
                    weights = (tokens @ tokens.T) ** int(row["degree"])
                    output = weights / weights.sum(axis=1, keepdims=True) @ tokens
                    margins.append(abs(output).sum(axis=1).max() - 1.5)
                np.testing.assert_allclose(margins + [margins[1] - margins[0]],
                                           [row["margin0"], row["margin1"], row["gap"]], rtol=0, atol=1e-10)


class SketchTest(CommandLineTest):
    def test_sketch(self):
        draw = np.random.default_rng(7)
        Q, K = (abs(draw.standard_normal((rows, 4))) + 0.3 for rows in (700, 90))
        V = draw.standard_normal((90, 3))
        for name, array in zip("QKV", (Q, K, V)):
            np.save(self.directory / f"{name}.npy", array)
        out = self.directory / "O.npy"
        for ranks in (0, 2):
            for degree, features in ((2, 10), (4, 2000), (3, 20000)):
                result = run("apply", *(self.directory / f"{name}.npy" for name in "QKV"), "--kernel", "polynomial",
                             "--degree", degree, "--sketch", features, "-o", out, "--force", "--json", ranks=ranks)
                self.assert_code(0, result)
                found = json.loads(result.stdout)
                weights = (Q @ K.T) ** degree
                exact = weights / weights.sum(axis=1, keepdims=True) @ V
                self.assertLessEqual(found["sketch_features"], features)
                self.assertEqual(234, found["compared_queries"])  # each third
                picked, some = np.load(out)[::3], exact[::3]
                error = np.linalg.norm(picked - some) / np.linalg.norm(some)
                self.assertAlmostEqual(error, found["error_against_exact"], places=10)
                self.assertLess(error, 0.3 if degree == 3 else 1e-12)
                self.assertAlmostEqual(np.linalg.norm(V.mean(axis=0) - some) / np.linalg.norm(some),
                                       found["error_of_uniform"], places=10)
        # Random directions: the weights of a sketch may be negative, squares are not.
        for name, rows in (("Q", 700), ("K", 90)):
            np.save(self.directory / f"{name}.npy", draw.standard_normal((rows, 12)))
        words = ("apply", *(self.directory / f"{name}.npy" for name in "QKV"), "--kernel", "polynomial", "--degree", 4,
                 "--sketch", 100, "-o", out, "--force")
        self.assert_error(run(*words, "--sketch-weights", "unbiased", ranks=2), 3, "not above 0")
        for ranks in (0, 2):
            self.assert_code(0, run(*words, ranks=ranks))
            found = np.load(out)
            self.assertTrue((found >= V.min(axis=0) - 1e-12).all() and (found <= V.max(axis=0) + 1e-12).all())
        self.assertIn("error against exact attention",
                      run("apply", *(self.directory / f"{name}.npy" for name in "QKV"), "--kernel", "polynomial", "--sketch",
                          10, "-o", out, "--force").stdout)


class RefusalTest(ErrorTest):
    def test_refusals(self):
        def save(name, array):
            np.save(self.directory / name, array)
            return self.directory / name
        G, H = save("G.npy", np.eye(6)), save("H.npy", np.ones((6, 4)))
        W, wide = save("W.npy", np.ones((4, 2))), save("wide.npy", np.ones((6, 5)))
        gnn = ("experiment", "gnn-features")
        self.fails(2, "--layers", arguments=(*gnn, G, H))
        self.fails(2, "two files", arguments=(*gnn, G))
        self.fails(2, "expected names of files", arguments=(*gnn, G, H, "--layers", f"{W},,{W}"))
        self.fails(2, "without files", arguments=(*gnn, G, H, "--layers", W, "--nodes", 5))
        self.fails(2, "--blocks is '0'", arguments=(*gnn, G, H, "--layers", W, "--blocks", "0"))
        self.fails(2, "--degrees is not an option of gnn-features", arguments=(*gnn, "--degrees", "1,2"))
        self.fails(3, "square", arguments=(*gnn, wide, H, "--layers", W))
        self.fails(3, "4 features come in", arguments=(*gnn, G, H, "--layers", wide))
        self.fails(3, "each layer needs one", arguments=(*gnn, G, H, "--layers", W, "--attention", f"{W},{W}"))
        self.fails(3, "expected 2 x 2", arguments=(*gnn, G, H, "--layers", W, "--attention", W))
        self.fails(3, "absent.npy", arguments=(*gnn, G, wide.with_name("absent.npy"), "--layers", W))
        self.fails(3, "degree -1", arguments=(*gnn, save("N.npy", -2 * np.eye(6)), H, "--layers", W))
        self.fails(5, "not finite", arguments=(*gnn, G, save("huge.npy", np.full((6, 4), 1e308)), "--layers", W))
        self.fails(3, "multiple of d - 2", arguments=("experiment", "polynomial", "--n", 10, "--d", 5))
        self.fails(2, "--degrees is '1,x'", arguments=("experiment", "polynomial", "--degrees", "1,x"))
        self.fails(2, "without files", arguments=("experiment", "polynomial", G, G, "--a1", 2))
        self.fails(3, "as many", arguments=("experiment", "polynomial", G, H))
        apply = ("apply", H, H, H, "-o", self.directory / "O.npy", "--sketch", 10)
        self.fails(2, "--sketch is for --kernel polynomial", arguments=apply)
        self.fails(2, "--sketch-weights is for --sketch",
                   arguments=(*apply[:-2], "--kernel", "polynomial", "--sketch-weights", "squares"))
        self.fails(3, "even degrees", arguments=(*apply, "--kernel", "polynomial", "--degree", 3, "--sketch-weights",
                                                 "squares"))
        self.fails(3, "all its logits are 0", arguments=("apply", save("zero.npy", np.zeros((2, 4))), H, H, "-o",
                                                         self.directory / "O.npy", "--kernel", "polynomial", "--sketch", 10))
        self.fails(2, "no --mask", arguments=(*apply, "--kernel", "polynomial", "--mask", "causal"))
        self.fails(3, "1 to 64", arguments=(*apply, "--kernel", "polynomial", "--degree", 100))


if __name__ == "__main__":
    unittest.main()
