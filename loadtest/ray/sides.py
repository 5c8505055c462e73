"""The two sides of the comparison as processes: started, asked for a first picture, weighed, stopped.

Everything that a side starts inherits a mark in its environment, by which it is found again, whoever its parent is by then.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

MARK = "MOBULA_COMPARE_MARK"
# Where Mobula's binaries are.
BIN = Path(os.environ.get("MOBULA_BIN_DIR", Path(__file__).resolve().parents[2] / "target/release")).absolute()
# Seconds; Ray takes the longest, on a busy machine.
START_PATIENCE = 300
STOP_PATIENCE = 20


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Side:
    """One side while it runs."""

    def __init__(self, command: list[str], environment: dict[str, str], http: str, log: Path, cores: str, cwd: Path):
        self.mark = uuid.uuid4().hex
        self.http = http
        self.log = log
        begin = time.monotonic()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", cores, *command],
                env={**os.environ, **environment, MARK: self.mark},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )
        try:
            self._first_picture(begin + START_PATIENCE)
        except BaseException:
            self.stop()
            raise
        # Seconds from the command to the first picture.
        self.start_s = time.monotonic() - begin

    def _first_picture(self, end: float) -> None:
        url = f"{self.http}/imagine?prompt=a%20red%20circle&seed=1&img_size=64&steps=1"
        while True:
            try:
                with urllib.request.urlopen(url, timeout=60) as answer:
                    if answer.read().startswith(b"\x89PNG"):
                        return
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"compare: no first picture; the end of {self.log}:\n" + self.log.read_text()[-3000:])
            time.sleep(0.01)

    def pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    pass
        return found

    def memory_mib(self) -> float:
        """Proportional set size of all processes: pages that several share count once."""
        kib = 0
        for pid in self.pids():
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        kib += int(line.split()[1])
            except OSError:
                pass
        return kib / 1024

    def stop(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for pid in [self.process.pid] if number == signal.SIGINT else self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + STOP_PATIENCE
            while time.monotonic() < end:
                self.process.poll()
                if not self.pids():
                    return
                time.sleep(0.1)


def mobula(kind: str, root: Path, work: Path, cores: str) -> Side:
    http, grpc, *rest = (f"127.0.0.1:{port}" for port in free_ports(6))
    names = ["--controller", "--rest", "--proxy-admin", "--controller-admin"]
    command = [str(BIN / "mobula"), "up", "--http", http, "--grpc", grpc]
    command += [word for pair in zip(names, rest) for word in pair]
    command += ["--state-dir", str(work / f"state-{uuid.uuid4().hex}")]
    if kind == "null":
        command += ["--engine", "fake"]
    side = Side(command, {}, f"http://{http}", work / f"mobula-{kind}.log", cores, root)
    side.grpc = grpc
    return side


def ray(kind: str, root: Path, work: Path, cores: str, python: Path) -> Side:
    (port,) = free_ports(1)
    config = work / "serve.yaml"
    config.write_text(
        f"http_options: {{host: 127.0.0.1, port: {port}}}\n"
        f"applications:\n- {{name: default, route_prefix: /, import_path: 'app:{kind}'}}\n"
    )
    environment = {
        "COMPARE_MODEL": str(root / "models/demo"),
        "PYTHONPATH": str(root / "loadtest/ray"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray would give torch one thread, since the replica asks for no core of its own.
        "OMP_NUM_THREADS": str(len(cores.split(","))),
        "HF_HUB_OFFLINE": "1",
        # Ray's sockets have a limit of 107 bytes on their path.
        "RAY_TMPDIR": str(work),
    }
    command = [str(python.parent / "serve"), "run", str(config)]
    return Side(command, environment, f"http://127.0.0.1:{port}", work / f"ray-{kind}.log", cores, root)
