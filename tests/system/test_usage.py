"""Wrong use of the command line: code 2 and a message that helps, on one rank and on three."""

import unittest

from command_line import ErrorTest, run


class UsageTest(ErrorTest):
    def test_unknown_names(self):
        self.fails(2, "did you mean '--weight'", arguments=("solve", self.A, self.b, "--wieght", "1"))
        self.fails(2, "did you mean 'solve'", arguments=("sovle", self.A, self.b))
        self.fails(2, "--help", arguments=("solve", self.A, self.b, "--qwertyuiop"))
        self.fails(2, "did you mean 'cross-entropy'", arguments=("solve", self.A, self.b, "--loss", "cross_entropy"))
        self.fails(2, "did you mean 'cross-entropy'", arguments=("solve", self.A, self.b, "--start", "crossentropy"))

    def test_no_abbreviations(self):
        self.fails(2, "unknown option '--max-i'", "--max-iterations",
                   arguments=("solve", self.A, self.b, "--max-i", "5"))

    def test_values_out_of_range(self):
        for option, values in {"--weight": ("nan", "inf", "-1", "1e999", "", "1e-4x", "0x1p3", "1,5"),
                               "--rtol": ("0", "-1e-3", "nan", "2"),
                               "--max-iterations": ("-1", "1.5", "99999999999999999999", "ten"),
                               "--time-limit": ("0", "inf", "-nan"),
                               "--threads": ("0", "-2", "1000000"),
                               "--storage": ("float8",), "--rtol-of": ("one",)}.items():
            for value in values:
                with self.subTest(option=option, value=value):
                    self.assert_error(run("solve", self.A, self.b, option, value), 2, option)
        self.fails(2, "--weight", arguments=("solve", self.A, self.b, "--weight", "nan"))

    def test_missing_and_surplus(self):
        self.fails(2, "missing argument b", arguments=("solve", self.A))
        self.fails(2, "surplus argument 'more'", arguments=("solve", self.A, self.b, "more"))
        self.fails(2, "--weight", arguments=("solve", self.A, self.b, "--weight"))
        self.fails(2, "given twice", arguments=("solve", self.A, self.b, "--weight", "1", "--weight", "2"))
        self.fails(2, "--weights", arguments=("solve", self.A, self.b, "--weight", "1", "--weights", "w.npy"))
        self.fails(2, "-o DIR", arguments=("solve", self.A, self.b, "--write-fitted"))

    def test_control_characters_are_not_passed_on(self):
        for ranks in (1, 3):
            result = run("solve", self.A, self.b, "--\x1b[31mred", ranks=ranks)
            self.assert_error(result, 2, "x1b[31mred")
            self.assertNotIn("\x1b", result.stderr)
        result = run("solve", self.directory / "evil\nattnreg: error: \x1b]0;.npy", self.b)
        self.assert_error(result, 3, "evil\\x0aattnreg")


if __name__ == "__main__":
    unittest.main()
