"""The scripts for Slurm, on a real Slurm of two nodes."""

import subprocess
import unittest

from checkout import PROGRAM, SOLVE_WORDS, CheckoutTest, blocks, read_run
from hosts import Hosts, enter_box, require, wait_until
from slurm import Slurm

HOSTS = SLURM = None


class SlurmTest(CheckoutTest):
    def submit(self, *arguments, **variables):
        return SLURM.submit(*arguments, cwd=self.directory, ATTNREG=str(PROGRAM), **variables)

    def output(self, job):
        return (self.directory / f"attnreg-{job}.out").read_text()

    def assert_solved(self, job, directory, x):
        self.assertEqual(("COMPLETED", 0), SLURM.wait(job), self.output(job))
        run = self.assert_same_x(x, directory, ranks=2)
        self.assertEqual([1, 1], run["layout"]["ranks_per_node"])

    def test_script_with_both_launchers(self):
        x = self.solve_here(ranks=2)
        for launcher in ("mpirun", "srun"):
            with self.subTest(launcher=launcher):
                job = self.submit("--nodes=2", "--ntasks-per-node=1", "launch/slurm.sh", *SOLVE_WORDS, "-o", launcher,
                                  ATTNREG_LAUNCHER=launcher)
                self.assert_solved(job, self.directory / launcher, x)

    def test_exit_code_is_the_programs(self):
        job = self.submit("launch/slurm.sh", *SOLVE_WORDS, "--max-iterations", "1")
        self.assertEqual(("FAILED", 4), SLURM.wait(job), self.output(job))

    def test_guide(self):
        commands = blocks("slurm")
        self.assertTrue(commands)
        for _, text in commands:
            HOSTS.run("head", "bash", "-euc", text, cwd=self.directory)
        for name in ("slurm", "job"):
            self.assertEqual([1, 1], read_run(self.directory / "run" / name)["layout"]["ranks_per_node"])

    def test_requeued_job_starts_again_unless_done(self):
        job = self.submit("launch/slurm.sh", *SOLVE_WORDS, "--starts", "100000", "-o", "run")
        history = self.directory / "run/history.csv"
        wait_until(lambda: history.exists() and history.stat().st_size > 1000, 30, "the job runs")
        HOSTS.run("head", "scontrol", "requeue", job)
        wait_until(lambda: SLURM.field(job, "JobState") == "PENDING", 20, "the job waits again")
        HOSTS.run("head", "scontrol", "update", f"JobId={job}", "StartTime=now")
        wait_until(lambda: f"attnreg: start 2 of job {job}" in self.output(job), 60, "the second start")
        wait_until(lambda: history.exists() and history.stat().st_size > 1000, 30, "the job runs again")
        HOSTS.run("head", "scancel", job)
        self.assertEqual("CANCELLED", SLURM.wait(job)[0])

        subprocess.run([PROGRAM, *SOLVE_WORDS, "--max-iterations", "1", "-o", self.directory / "done"], check=False,
                       stdout=subprocess.DEVNULL)
        before = (self.directory / "done/x.npy").stat().st_mtime_ns
        output = HOSTS.run("head", "launch/slurm.sh", *SOLVE_WORDS, "-o", "done", cwd=self.directory, code=4,
                           environment={"SLURM_RESTART_COUNT": "1", "SLURM_JOB_ID": job})
        self.assertIn("the run was done already", output)
        self.assertEqual(before, (self.directory / "done/x.npy").stat().st_mtime_ns)

    def test_node_dies(self):
        job = self.submit("launch/slurm.sh", *SOLVE_WORDS, "--starts", "100000", "-o", "run")
        history = self.directory / "run/history.csv"
        wait_until(lambda: history.exists() and history.stat().st_size > 1000, 30, "the job runs")
        HOSTS.kill("w2")
        state, code = SLURM.wait(job)
        self.assertEqual("FAILED", state, self.output(job))
        self.assertNotEqual(0, code)
        self.assertEqual([], HOSTS.processes("w1", "attnreg"))
        SLURM.start_node("w2")
        wait_until(lambda: SLURM.states() == ["idle", "idle"], 30, "the node is back")


if __name__ == "__main__":
    require("mpirun", "unshare", "nsenter", "ip", "slurmctld", "slurmd", "sbatch", "munged", root=True)
    enter_box()
    HOSTS = Hosts("head", "w1", "w2", net="10.78.0")
    SLURM = Slurm(HOSTS)
    unittest.main(verbosity=2)
