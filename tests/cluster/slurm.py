"""A Slurm on hosts.Hosts: the controller on the head, a slurmd on each of the others."""

import os
import pathlib
import re
import subprocess

from hosts import STATE, wait_until

DIRECTORY = STATE / "slurm"

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=head({head})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock,cred_expire=5
SlurmctldPidFile={directory}/slurmctld.pid
SlurmctldLogFile={directory}/slurmctld.log
StateSaveLocation={directory}/state
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmdLogFile={directory}/slurmd.%n.log
SlurmdSpoolDir={directory}/spool/%n
TmpFS={directory}/tmp/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=3
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1
PartitionName=all Nodes=ALL Default=YES MaxTime=UNLIMITED State=UP
"""


class Slurm:
    def __init__(self, hosts, cores=2):
        self.hosts = hosts
        self.nodes = hosts.names[1:]
        for name in ("state", *(f"{part}/{node}" for part in ("spool", "tmp") for node in self.nodes)):
            (DIRECTORY / name).mkdir(parents=True)
        os.environ["SLURM_CONF"] = str(DIRECTORY / "slurm.conf")
        (DIRECTORY / "slurm.conf").write_text(
            CONFIGURATION.format(head=hosts.addresses["head"], directory=DIRECTORY)
            + "".join(f"NodeName={node} NodeAddr={hosts.addresses[node]} CPUs={cores} RealMemory=4000 State=UNKNOWN\n"
                      for node in self.nodes))
        self._start_munge()
        hosts.run("head", "slurmctld")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.states() == ["idle"] * len(self.nodes), "all nodes are idle")

    @staticmethod
    def _start_munge():
        key = DIRECTORY / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        subprocess.run(["munged", "--force", f"--key-file={key}", f"--socket={DIRECTORY}/munge.sock",
                        f"--pid-file={DIRECTORY}/munged.pid", f"--log-file={DIRECTORY}/munged.log",
                        f"--seed-file={DIRECTORY}/munged.seed"], check=True)

    def start_node(self, node):
        self.hosts.run(node, "slurmd", "-N", node)

    def states(self):
        return self.hosts.run("head", "sinfo", "-h", "-N", "-o", "%T").split()

    def submit(self, *arguments, cwd, **variables):
        """The number of a new job."""
        return self.hosts.run("head", "sbatch", "--parsable", *arguments, cwd=cwd, environment=variables).strip()

    def field(self, job, name):
        found = re.search(rf"\b{name}=(\S*)", self.hosts.run("head", "scontrol", "show", "job", job))
        return found.group(1) if found else None

    def wait(self, job):
        """The state in which the job ends, and its exit code."""
        ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
        wait_until(lambda: self.field(job, "JobState") in ended, f"job {job} ends")
        return self.field(job, "JobState"), int(self.field(job, "ExitCode").split(":")[0])

    def logs(self):
        return "\n".join(f"--- {path}\n{path.read_text()[-1000:]}" for path in pathlib.Path(DIRECTORY).glob("*.log"))
