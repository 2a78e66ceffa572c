"""Programs that measure on request, and the load of the machine during a measurement."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

START_SECONDS = 900  # torch.compile takes minutes for large models.


class Load:
    """The load by other programs and by the host of a virtual machine, since the object was made."""

    TICKS = os.sysconf("SC_CLK_TCK")

    def __init__(self, process):
        self.process = process
        self.begin = self.now()

    def now(self):
        """Returns the time, and the processor times of all programs, of the process, and of the host, in seconds."""
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        with open("/proc/%d/stat" % self.process) as stat:
            own = sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
        return (time.perf_counter(), (user + nice + system + irq + softirq) / self.TICKS, own / self.TICKS,
                steal / self.TICKS)

    def shares(self):
        """Returns how many processors other programs took on average, and how many the host withheld."""
        duration, busy, own, steal = (b - a for a, b in zip(self.begin, self.now()))
        return max(0.0, busy - own) / duration, steal / duration


class Server:
    """A program with the flag --serve. It is stopped (SIGSTOP) between measurements, so it takes no time from others.

    Raises Cannot if the program says that it cannot do the work, and Failed if it fails.
    """

    class Cannot(Exception):
        pass

    class Failed(Exception):
        pass

    def __init__(self, command):
        self.command = command
        self.details = None  # The result of the latest measurement; throughput.cc says what it has.
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command + ["--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, universal_newlines=True, start_new_session=True)
        self.measure(0.3)

    def measure(self, seconds):
        """Returns the examples per second, and Load.shares() for that time."""
        self.signal(signal.SIGCONT)
        load = Load(self.process.pid)
        try:
            self.process.stdin.write("%g\n" % seconds)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The program has ended; the next lines say why.
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.fail()
        shares = load.shares()
        self.signal(signal.SIGSTOP)
        self.details = json.loads(line)
        return self.details["examples_per_second"], shares

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def fail(self):
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if code == 3:
            raise Server.Cannot()
        self.errors.seek(0)
        print("failed: %s\n%s" % (" ".join(self.command), self.errors.read()[-2000:]), file=sys.stderr)
        raise Server.Failed()

    def close(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
