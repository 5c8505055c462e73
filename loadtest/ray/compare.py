#!/usr/bin/env python3
"""Mobula beside Ray Serve, by turns on the same cores: the same requests, the same model, the same judge (mobula-loadtest).

  loadtest/ray/compare.py [--quick] [--rounds N] [--seconds S] [--cores 0,1] [--python VENV/bin/python]

Each round starts one side, takes its start-up and memory, loads it, stops it, and then does the same with the other side, so
that neither ever runs while the other is measured. The load generator runs on the same cores. Every answer is checked.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import sides

ROOT = Path(__file__).resolve().parents[2]
# Both sides draw this; the demo model's own size, steps and guidance.
PICTURE = ["--size", "128", "--steps", "20", "--guidance-scale", "3", "--seeds", "8"]
NULL = ["--size", "64", "--steps", "1", "--seeds", "8"]
# Part of a side's capacity at which its tail is read.
PART = 0.8

# name, unit, whether more is better, what is asked of Mobula against Ray (times as much, or as little)
FIGURES = [
    ("null: requests/s, 32 callers", "1/s", True, 50),
    ("null: p50, one caller", "ms", False, 10),
    ("null: p99, 32 callers", "ms", False, 10),
    ("null: memory of all processes", "MiB", False, None),
    ("pictures: images/s, 16 callers", "1/s", True, 2.5),
    ("pictures: p99 at 80 % of Ray's capacity", "ms", False, 3),
    ("pictures: p99 at 80 % of its own capacity", "ms", False, None),
    ("pictures: memory of all processes", "MiB", False, 10),
    ("pictures: start to first picture", "s", False, 5),
]


class Judge:
    def __init__(self, work: Path, seconds: float, cores: str):
        self.work, self.seconds, self.cores = work, seconds, cores

    def load(self, target: str, *flags: str, warmup: float = 2, require: float = 100) -> dict:
        report = self.work / "report.json"
        report.unlink(missing_ok=True)
        command = ["taskset", "--cpu-list", self.cores, str(sides.BIN / "mobula-loadtest"), "--target", target]
        command += ["--duration", f"{self.seconds}s", "--warmup", f"{warmup}s", "--require", str(require)]
        command += ["--json", str(report), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"compare: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads(report.read_text())


def null_round(judge: Judge, side: sides.Side) -> dict[str, float]:
    one = judge.load(side.http, "--callers", "1", *NULL)
    many = judge.load(side.http, "--callers", "32", *NULL)
    return {
        "null: requests/s, 32 callers": many["rates"]["answered"],
        "null: p50, one caller": one["latency_ms"]["p50"],
        "null: p99, 32 callers": many["latency_ms"]["p99"],
        "null: memory of all processes": side.memory_mib(),
    }


def picture_round(judge: Judge, side: sides.Side, rays_capacity: float | None) -> dict[str, float]:
    many = judge.load(side.http, "--callers", "16", *PICTURE)
    capacity = many["rates"]["answered"]
    tail = lambda rate: judge.load(side.http, "--rate", str(rate), *PICTURE, require=0)["latency_ms"]["p99"]
    own = tail(PART * capacity)
    return {
        "pictures: images/s, 16 callers": capacity,
        "pictures: p99 at 80 % of its own capacity": own,
        "pictures: p99 at 80 % of Ray's capacity": own if rays_capacity is None else tail(PART * rays_capacity),
        "pictures: memory of all processes": side.memory_mib(),
        "pictures: start to first picture": side.start_s,
    }


def table(rounds: list[tuple[dict, dict]]) -> str:
    lines = ["| figure | Mobula | Ray Serve | ratio | rounds from, to | asked |", "| --- | --- | --- | --- | --- | --- |"]
    for name, unit, more, asked in FIGURES:
        pairs = [(mobula[name], ray[name]) for mobula, ray in rounds if name in mobula and name in ray]
        if not pairs:
            continue
        ratios = [(m / r if more else r / m) if m and r else math.nan for m, r in pairs]
        mobula, ray = (statistics.median(column) for column in zip(*pairs))
        wanted = f"{asked:g} ({'reached' if statistics.median(ratios) >= asked else 'missed'})" if asked else ""
        lines.append(
            f"| {name} | {mobula:.4g} {unit} | {ray:.4g} {unit} | {statistics.median(ratios):.3g} times as "
            f"{'much' if more else 'little'} | {min(ratios):.3g}, {max(ratios):.3g} | {wanted} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of short loads: shows that it works, no figures to quote")
    parser.add_argument("--rounds", type=int, help="turns of each side (3)")
    parser.add_argument("--seconds", type=float, help="length of each load (30)")
    parser.add_argument("--cores", default=",".join(map(str, sorted(os.sched_getaffinity(0)))), help="as taskset has them (all)")
    parser.add_argument("--only", choices=["null", "pictures"], help="one half of the comparison")
    parser.add_argument("--python", type=Path, default=ROOT / ".tools/ray-compare/bin/python", help="of Ray's environment")
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else 3)
    seconds = args.seconds or (4 if args.quick else 30)

    # A short path: Ray puts its sockets below it.
    work = Path(tempfile.mkdtemp(prefix="mcmp", dir="/tmp"))
    judge = Judge(work, seconds, args.cores)
    kept = []
    try:
        for number in range(rounds):
            both: tuple[dict, dict] = ({}, {})
            for kind in [args.only] if args.only else ["null", "pictures"]:
                rays_capacity = None
                # Ray first: its capacity says at which rate both tails are read.
                for result, name in ((both[1], "ray"), (both[0], "mobula")):
                    print(f"compare: round {number + 1} of {rounds}, {kind}, {name}", file=sys.stderr)
                    if name == "ray":
                        side = sides.ray(kind, ROOT, work, args.cores, args.python.absolute())
                    else:
                        side = sides.mobula(kind, ROOT, work, args.cores)
                    try:
                        if kind == "null":
                            result.update(null_round(judge, side))
                        else:
                            result.update(picture_round(judge, side, rays_capacity))
                            rays_capacity = result["pictures: images/s, 16 callers"]
                    finally:
                        side.stop()
            kept.append(both)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    out = ROOT / "target/compare"
    out.mkdir(parents=True, exist_ok=True)
    text = table(kept)
    (out / "rounds.json").write_text(json.dumps([{"mobula": m, "ray": r} for m, r in kept], indent=2))
    (out / "table.md").write_text(text + "\n")
    print(f"{rounds} rounds of {seconds:g} s a load, cores {args.cores}, medians\n\n{text}")


if __name__ == "__main__":
    main()
