"""--audit: nothing changes where nothing is wrong, and bits that flip are found, named and made good."""

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run

FLIP = "flip50"  # a quarter of the number, at least


class AuditTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(4096, 32)  # four tiles of 1024 rows, each summed in eight parts
        self.A, self.b = self.directory / "A.npy", self.directory / "b.npy"

    def solve(self, *words, ranks=1, fault=None, out="run"):
        """run.json, stdout and x."""
        directory = self.directory / out
        result = run("solve", self.A, self.b, "--method", "newton-cg", "--start", "zero", "-o", directory, "--force", *words,
                     ranks=ranks, environment={"ATTNREG_FAULT": fault} if fault else None)
        self.assert_code(0, result)
        if fault:
            self.assertIn("fault played", result.stderr)
        return read_json(directory / "run.json"), result.stdout, (directory / "x.npy").read_bytes()

    def test_nothing_changes(self):
        for ranks in (1, 2, 3, 4):
            with self.subTest(ranks=ranks):
                plain, page, x = self.solve(ranks=ranks)
                self.assertNotIn("audit", plain)
                self.assertNotIn("audit", page)
                for rate in ("0.2", "1") if ranks == 3 else ("1",):
                    audited, page, y = self.solve("--audit", rate, ranks=ranks)
                    self.assertEqual(x, y)
                    found = audited["audit"]
                    self.assertEqual((float(rate), 0, 0), (found["rate"], found["repeated"], found["misjudged"]))
                    self.assertAlmostEqual(found["reads"], found["rows"] / 4096)
                    self.assertIn("all agree", page)
                self.assertEqual(4096 * found["evaluations"], found["rows"])
                self.assertEqual(plain["warnings"], audited["warnings"])

    def wrong(self, site, ranks, kind=FLIP, visit=20):
        """The audit and its warnings, where the last rank plays this fault."""
        audited, page, x = self.solve("--audit", "1", ranks=ranks, fault=f"{ranks - 1}:{site}:{kind}:{visit}")
        return audited["audit"], [text for text in audited["warnings"] if text.startswith("audit: ")], x, page

    def test_wrong_sums_and_logits_are_made_again(self):
        for ranks in (1, 2, 3, 4):
            _, _, right = self.solve(ranks=ranks)
            for site, visit, what in (("sums", 20, "the sums of the gradient"), ("logits", 2, "A x")):
                with self.subTest(ranks=ranks, site=site):
                    found, warnings, x, page = self.wrong(site, ranks, visit=visit)
                    self.assertGreaterEqual(found["repeated"], 1)
                    self.assertEqual(0, found["misjudged"])
                    self.assertIn(f"{what} of rows ", warnings[0])
                    self.assertIn(f" of rank {ranks - 1} were wrong in evaluation ", warnings[0])
                    if ranks > 2:
                        self.assertIn("say rank 0 and rank 1:", warnings[0])
                    self.assertIn("wrong: 1 evaluation, made again", page)
                    np.testing.assert_allclose(np.frombuffer(x[-256:]), np.frombuffer(right[-256:]), rtol=1e-6)

    def test_wrong_checks_change_nothing(self):
        for ranks in (1, 2, 3):
            with self.subTest(ranks=ranks):
                _, _, right = self.solve(ranks=ranks)
                found, warnings, x, _ = self.wrong("check", ranks, visit=3)
                self.assertEqual((0, 1), (found["repeated"], found["misjudged"]))
                self.assertIn(f"audit: rank {ranks - 1} found the sums of the gradient of rows ", warnings[0])
                self.assertIn("and was wrong itself", warnings[0])
                self.assertEqual(right, x)

    def test_flips_below_rounding_pass(self):
        found, warnings, _, page = self.wrong("sums", 2, "flip0")
        self.assertEqual((0, 0, []), (found["repeated"], found["misjudged"], warnings))
        self.assertIn("all agree", page)

    def test_with_others(self):
        B = np.stack([np.load(self.b), np.roll(np.load(self.b), 5)], axis=1)
        np.save(self.directory / "B.npy", B)
        out = self.directory / "targets"
        self.assert_code(0, run("solve", self.A, "--targets", self.directory / "B.npy", "--audit", "0.5", "-o", out,
                                ranks=2))
        audited = read_json(out / "run.json")
        for target in audited["targets"]:
            self.assertEqual((0, 0), (target["audit"]["repeated"], target["audit"]["misjudged"]))
            self.assertGreater(target["audit"]["rows"], 0)
        _, _, once = self.solve("--reproducible", "--blocks", "4", ranks=1)
        for ranks in (1, 3):
            audited, _, x = self.solve("--reproducible", "--blocks", "4", "--audit", "0.5", ranks=ranks)
            self.assertEqual(once, x)
            self.assertEqual(0, audited["audit"]["repeated"])


class AuditErrorTest(ErrorTest):
    def test_rates(self):
        for rate in ("-0.1", "1.5", "nan", "often"):
            self.fails(2, "--audit", arguments=("solve", self.A, self.b, "--audit", rate))

    def test_a_rank_that_is_always_wrong(self):
        plan = ",".join(f"0:sums:{FLIP}:{k}" for k in range(1, 100))  # rank 0 has all rows of so small a problem
        for ranks in (1, 3):
            result = run("solve", self.A, self.b, "--start", "zero", "--audit", "1", ranks=ranks,
                         environment={"ATTNREG_FAULT": plan})
            self.assert_error(result, 9, "audit: a rank was wrong in 4 evaluations in a row", "of rank 0 were wrong")
