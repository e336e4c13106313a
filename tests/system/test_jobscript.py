"""jobscript: what the scripts ask for, that the shell accepts them, and what is refused."""

import re
import subprocess
import unittest

from command_line import SOURCE_DIR, ErrorTest, run

SIZE = ("--rows", 10**8, "--cols", 200, "--ranks", 64, "--cores-per-node", 32)


class JobscriptTest(ErrorTest):
    def script(self, kind, *options, ranks=0):
        result = run("jobscript", kind, *options, ranks=ranks)
        self.assert_code(0, result)
        self.assertEqual(0, subprocess.run(["bash", "-n"], input=result.stdout, text=True).returncode)
        return result.stdout

    def slurm(self, *options):
        """The directives, by name."""
        return dict(re.findall(r"#SBATCH --([a-z-]+)=?(\S*)", self.script("slurm", *options)))

    def test_slurm_layout_memory_and_time(self):
        asked = self.slurm(*SIZE)
        self.assertEqual(("2", "64", "32", "1"),
                         tuple(asked[name] for name in ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task")))
        # A itself has 80 GB on a node; the vectors over rows, the d x d sums, MPI and a margin come on top.
        self.assertTrue(80_000 < int(asked["mem"][:-1]) < 160_000, asked["mem"])
        # 45 reads of 80 GB, and of vectors, at 10 GB/s are 371 s, and 10 s; a fifth of what is asked for.
        hours, minutes, _ = map(int, asked["time"].split(":"))
        self.assertTrue(5 * 381 / 60 < 60 * hours + minutes < 1.1 * 5 * 381 / 60, asked["time"])
        self.assertEqual("B:USR2@120", asked["signal"])

    def test_threads_share_the_cores(self):
        asked = self.slurm(*SIZE, "--threads", 8, "--time", 90)
        self.assertEqual(("16", "4", "8", "01:30:00"),
                         tuple(asked[name] for name in ("nodes", "ntasks-per-node", "cpus-per-task", "time")))

    def test_smaller_problems_ask_for_less(self):
        memory = [int(self.slurm(*SIZE, *options)["mem"][:-1])
                  for options in ((), ("--storage", "float"), ("--storage", "half"), ("--nonzeros", 10**9))]
        self.assertEqual(sorted(memory, reverse=True), memory)
        self.assertLess(memory[1], 0.6 * memory[0])

    def test_pbs_and_ssh(self):
        pbs = self.script("pbs", "--rows", 10**6, "--cols", 100, "--ranks", 7, "--cores-per-node", 4)
        self.assertRegex(pbs, r"#PBS -l select=1:ncpus=4:mpiprocs=4:ompthreads=1:mem=\d+mb"
                              r"\+1:ncpus=3:mpiprocs=3:ompthreads=1:mem=\d+mb\n")
        ssh = self.script("ssh", "--rows", 10**6, "--cols", 100, "--ranks", 8, "--cores-per-node", 4, "--hosts", "a,b-1")
        self.assertIn("a slots=4\nb-1 slots=4\n", ssh)

    def test_scripts_end_like_those_of_launch(self):
        for kind, file in (("slurm", "slurm"), ("pbs", "pbs"), ("ssh", "hostfile")):
            shipped = (SOURCE_DIR / "launch" / f"{file}.sh").read_text().split("# ---- ")[1].split("\n\n", 1)[1]
            self.assertTrue(self.script(kind, *SIZE, "--hosts", "a,b").endswith(shipped), kind)

    def test_arguments_are_quoted(self):
        text = self.script("slurm", *SIZE, "--program", "/opt/my dir/attnreg", "--arguments", "solve $(id) b'c -o *")
        self.assertIn("set -- 'solve' '$(id)' 'b'\\''c' '-o' '*'\n", text)
        self.assertIn("ATTNREG='/opt/my dir/attnreg'\n", text)

    def test_file_can_be_run(self):
        path = self.directory / "job.sh"
        for ranks in (1, 3):
            self.assert_code(0, run("jobscript", "slurm", *SIZE, "-o", path, "--force", ranks=ranks))
            self.assertTrue(path.stat().st_mode & 0o100)
            self.assertEqual(self.script("slurm", *SIZE), path.read_text())

    def test_what_is_refused(self):
        self.fails(2, "--ranks", arguments=("jobscript", "slurm", "--rows", 10, "--cols", 2))
        self.fails(2, "did you mean 'slurm'", arguments=("jobscript", "slrum", *SIZE))
        self.fails(2, "--ranks-per-node", arguments=("jobscript", "slurm", *SIZE, "--ranks-per-node", 33))
        self.fails(2, "--hosts names 1 host, 2 are needed", arguments=("jobscript", "ssh", *SIZE, "--hosts", "a"))
        self.fails(2, "'-a'", arguments=("jobscript", "ssh", *SIZE, "--hosts", "-a,b"))
        self.fails(2, "a;id", arguments=("jobscript", "ssh", *SIZE, "--hosts", "a;id,b"))
        self.fails(7, "GB for 32 ranks, it has 64 GB",
                   arguments=("jobscript", "slurm", *SIZE, "--memory-per-node", 64))
        self.fails(6, "missing", arguments=("jobscript", "slurm", *SIZE, "-o", self.directory / "missing/job.sh"))


if __name__ == "__main__":
    unittest.main()
