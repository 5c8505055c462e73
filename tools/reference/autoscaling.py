#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["ray[serve]==2.60.0"]
# ///
"""Golden traces of Ray Serve's autoscaling for crates/serving: target and total after every tick of many random loads.

Ray's own classes decide: DeploymentAutoscalingState (bounds, aggregation, policy with delays, dropping of silent handles) and the
InMemoryMetricsStore in which a handle keeps its window; only their clock is replaced. A tick is 100 ms, as in Ray's control loop:
the running replicas are told, what was reported since is in, the policy decides, silent handles are dropped.

Every load runs three times: with reports as objects, with reports as columns (Ray sums the two in different orders), and with a
ceil that takes what is within 1e-9 of a whole number for that number. Where that alone changes a target the load is left out,
because there Ray's target hangs on the last bit of a float: six requests over three replicas with a target of two can be 3 + 4e-16
replicas to it, and then a fourth is started.

A handle records a sample and reports it at once. Its running requests are one series, filed under a replica that never stops, or
those of the replicas come from the replicas themselves ("replicas" of a case).

    python tools/reference/autoscaling.py --out crates/serving/tests/golden/autoscaling.json
"""

import argparse
import json
import logging
import math
import random
import types
import warnings

import ray
from ray.serve._private import autoscaling_metrics_codec as codec
from ray.serve._private import autoscaling_state, metrics_utils
from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
from ray.serve._private.common import (
    RUNNING_REQUESTS_KEY,
    DeploymentHandleSource,
    DeploymentID,
    HandleMetricReport,
    ReplicaID,
    ReplicaMetricReport,
    TargetCapacityDirection,
)
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.controller import calculate_target_capacity_direction
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve._private.utils import get_capacity_adjusted_num_replicas
from ray.serve import autoscaling_policy
from ray.serve.config import AutoscalingConfig, GangSchedulingConfig
from ray.serve.schema import ServeDeploySchema

RAY = "2.60.0"
TICK_MS = 100
DEPLOYMENT = DeploymentID(name="d", app_name="a")
QUEUED, RUNNING = "queued", "running"


class Clock:
    """Stands in for the module `time` where Ray decides."""

    def __init__(self):
        self.ms = 0

    def time(self):
        return self.ms / 1000.0

    monotonic = time


def near(x):
    """The smallest whole number that is not below, float noise considered."""
    whole = round(x)
    return whole if abs(x - whole) <= 1e-9 * max(1.0, abs(whole)) else math.ceil(x)


EXACT, NEAR = types.SimpleNamespace(ceil=math.ceil), types.SimpleNamespace(ceil=near)
CLOCK = Clock()
autoscaling_state.time = CLOCK
autoscaling_policy.time = CLOCK


def replica(name):
    return ReplicaID(unique_id=str(name), deployment_id=DEPLOYMENT)


def info(config, capacity, direction, gang):
    deployment = {"autoscaling_config": AutoscalingConfig(**config)}
    if gang > 1:
        deployment["gang_scheduling_config"] = GangSchedulingConfig(gang_size=gang)
    return DeploymentInfo(
        deployment_config=DeploymentConfig(**deployment),
        replica_config=ReplicaConfig.create(lambda: None),
        start_time_ms=0,
        deployer_job_id="",
        version="1",
        target_capacity=capacity,
        target_capacity_direction=direction,
    )


def schema(capacity, apps=("a",)):
    apps = [{"name": name, "import_path": "a:b", "route_prefix": f"/{name}"} for name in apps]
    return ServeDeploySchema(applications=apps, target_capacity=capacity)


class Handle:
    """A router's side: the store in which it keeps its window, and the report that it makes of it."""

    def __init__(self, name, look_back):
        self.name, self.look_back = name, look_back
        self.store = metrics_utils.InMemoryMetricsStore()

    def sample(self, queued, running):
        now = CLOCK.time()
        self.store.add_metrics_point({QUEUED: queued, RUNNING: running}, now)
        self.store.prune_keys_and_compact_data(now - self.look_back)
        return HandleMetricReport(
            deployment_id=DEPLOYMENT,
            handle_id=self.name,
            actor_id="",
            handle_source=DeploymentHandleSource.UNKNOWN,
            queued_requests=list(self.store.data[QUEUED]),
            metrics={RUNNING_REQUESTS_KEY: {replica("always").to_full_id_str(): list(self.store.data[RUNNING])}},
            timestamp=now,
        )


class Replica(Handle):
    def sample(self, _queued, running):
        now = CLOCK.time()
        self.store.add_metrics_point({RUNNING: running}, now)
        self.store.prune_keys_and_compact_data(now - self.look_back)
        return ReplicaMetricReport(
            replica_id=replica(self.name), metrics={RUNNING_REQUESTS_KEY: list(self.store.data[RUNNING])}, timestamp=now
        )


def lengths(values):
    """Run lengths: [tick, value] where the value changes."""
    runs = []
    for tick, value in enumerate(values):
        if not runs or runs[-1][1] != value:
            runs.append([tick, value])
    return runs


def play(case, columns=False, numbers=EXACT):
    """Runs a case; gives targets, totals and what the loop was told, by tick."""
    autoscaling_policy.math = numbers
    rng = random.Random(case["seed"])
    state = DeploymentAutoscalingState(DEPLOYMENT)
    config, capacity, direction = case["config"], case["capacity"], None
    gang = case.get("gang", 1)
    if capacity is not None:
        direction = calculate_target_capacity_direction(None, schema(capacity), None)
    CLOCK.ms = 0
    target = state.register(info(config, capacity, direction, gang), case["start"])
    handles = {name: Handle(name, config["look_back_period_s"]) for name in case["samples"]}
    queue = sorted((at, name, q, r) for name, samples in case["samples"].items() for at, q, r in samples)
    changes = {change["tick"]: change for change in case.get("changes", [])}
    by_replica = case.get("replicas", False)
    running, starting, serial = [], [], 0
    told, gone, targets, totals = [], [], [target], []
    if case.get("warm", False):
        running, serial = [Replica(i, config["look_back_period_s"]) for i in range(target)], target
    from_replicas = []

    def give(report):
        if isinstance(report, ReplicaMetricReport):
            state.record_request_metrics_for_replica(report)
        elif columns:
            state.record_columnar_metrics_for_handle(codec.decode_handle_flat(codec.encode(report)))
        else:
            state.record_request_metrics_for_handle(report)

    for tick in range(case["ticks"]):
        now = tick * TICK_MS
        while queue and queue[0][0] <= now:
            at, name, queued, load = queue.pop(0)
            CLOCK.ms = at
            give(handles[name].sample(queued, load))
            if by_replica and running:
                # The replicas report when a router does, each its share of the load.
                for i, one in enumerate(running):
                    share = load // len(running) + (1 if i < load % len(running) else 0)
                    give(one.sample(0, share))
                    from_replicas.append([at, one.name, share])
        CLOCK.ms = now
        change = changes.get(tick)
        if change:
            old = capacity
            config, capacity = change.get("config", config), change.get("capacity", capacity)
            direction = calculate_target_capacity_direction(schema(old), schema(capacity), direction)
            target = state.register(info(config, capacity, direction, gang), target)
            for one in [*handles.values(), *running]:
                one.look_back = config["look_back_period_s"]
        # Replicas that were asked for start after a while, those not wanted stop at once, the youngest first.
        while len(running) + len(starting) < target:
            starting.append(tick + rng.randrange(case["lag"] + 1))
        while len(running) + len(starting) > target:
            if starting:
                starting.pop()
            else:
                one = running.pop()
                state.on_replica_stopped(replica(one.name))
                gone.append([tick, one.name])
        for due in [due for due in starting if due <= tick]:
            starting.remove(due)
            running.append(Replica(serial, config["look_back_period_s"]))
            serial += 1
        told.append(len(running))
        state.update_running_replica_ids([replica(one.name) for one in running])
        if running:
            state._cached_running_replica_strs.add(replica("always").to_full_id_str())
        target = state.get_decision_num_replicas(target)
        targets.append(target)
        totals.append(state.get_last_decision_total_num_requests())
        state.drop_stale_handle_metrics(set())
    return {"targets": targets, "totals": totals, "told": told, "gone": gone, "from_replicas": from_replicas}


def shape(rng, kind, ticks):
    """The load at a time in ms: requests at all routers together."""
    end = ticks * TICK_MS
    high, low = rng.choice([3, 6, 10, 25, 60]), rng.choice([0, 0, 1, 2])
    if kind == "constant":
        return lambda at: high
    if kind == "step":
        a, b = sorted(rng.randrange(end) for _ in range(2))
        return lambda at: high if a <= at < b else low
    if kind == "bursts":
        period, width = rng.choice([7_000, 20_000, 45_000]), rng.choice([600, 2_000, 9_000])
        return lambda at: high if at % period < width else low
    if kind == "ramp":
        top = rng.randrange(end // 4, 3 * end // 4)
        return lambda at: round(high * (at / top if at < top else max(0.0, (end - at) / (end - top))))
    if kind == "zero":
        a, b = end // 4, rng.randrange(end // 2, 7 * end // 8)
        return lambda at: 0 if a <= at < b else high
    if kind == "walk":
        steps = [high]
        for _ in range(end // 1_000 + 1):
            steps.append(max(0, steps[-1] + rng.choice([-4, -2, -1, 0, 0, 1, 2, 4])))
        return lambda at: steps[at // 1_000]
    return lambda at: rng.randrange(high + 1)  # noise


def samples(rng, load, ticks, routers, interval, silent):
    """What each router sees: its part of the load, split into queued and running."""
    out = {}
    for i in range(routers):
        at, rows = rng.randrange(1, interval + 1), []
        stop = rng.randrange(ticks * TICK_MS) if silent and i == 0 else ticks * TICK_MS
        while at < ticks * TICK_MS:
            # Half-way to the next 10 ms the way of rounding would decide, and ticks are not the time of samples.
            if at % 10 == 5 or at % TICK_MS == 0:
                at += 1
            if at < stop or at > stop + 40_000:
                total = load(at) // routers + (1 if i < load(at) % routers else 0)
                queued = rng.randrange(total + 1) if rng.random() < 0.6 else 0
                rows.append([at, queued, total - queued])
            at += max(20, interval + rng.randrange(-interval // 4, interval // 4 + 1))
        out[f"p{i}"] = rows
    return out


def case(seed):
    rng = random.Random(seed)
    ticks = rng.choice([300, 600, 900, 1_200])
    interval = rng.choice([700, 1_300, 2_300, 4_700])
    low = rng.choice([0, 0, 1, 1, 2, 3])
    high = max(1, low + rng.choice([0, 1, 3, 8, 30]))
    look_back = rng.choice([2.0, 5.0, 12.0, 30.0])
    config = {
        "min_replicas": low,
        "max_replicas": high,
        "initial_replicas": rng.choice([None, None, rng.randint(low, high)]),
        "target_ongoing_requests": rng.choice([1, 2, 2, 3, 5, 0.7]),
        "metrics_interval_s": rng.choice([0.5, 1.0, 7.0, 10.0]),
        "look_back_period_s": look_back,
        "upscaling_factor": rng.choice([None, None, 0.3, 0.5, 2.0, 3.7]),
        "downscaling_factor": rng.choice([None, None, 0.2, 0.6, 1.5]),
        "upscale_delay_s": rng.choice([0, 0, 0.05, 0.3, 2, 5, 30]),
        "downscale_delay_s": rng.choice([0, 0, 0.25, 2, 6, 30]),
        "downscale_to_zero_delay_s": rng.choice([None, None, 0, 3, 12]),
        "aggregation_function": rng.choice(["mean", "mean", "mean", "max", "min"]),
    }
    # A replica's last word counts in Ray until the replica stops; Mobula drops it, so replicas are never silent here.
    by_replica = rng.random() < 0.25
    silent = rng.random() < 0.3 and not by_replica
    kind = rng.choice(["constant", "step", "bursts", "ramp", "zero", "walk", "noise"])
    made = {
        "seed": seed,
        "load": kind,
        "config": config,
        "capacity": rng.choice([None, None, None, 100.0, 50.0, 33.3, 0.0, 75.0]),
        "start": rng.choice([0, low, high]),
        "ticks": ticks,
        "lag": rng.choice([0, 0, 15, 60]),
        "warm": rng.random() < 0.5,
        "samples": samples(rng, shape(rng, kind, ticks), ticks, rng.choice([1, 1, 2, 3]), interval, silent),
    }
    if by_replica:
        made["replicas"] = True
    if rng.random() < 0.12:
        made["gang"] = rng.choice([2, 4])
        for bound in ["min_replicas", "max_replicas", "initial_replicas"]:
            if config[bound] is not None:
                config[bound] = -(-config[bound] // made["gang"]) * made["gang"]
        made["start"] = -(-made["start"] // made["gang"]) * made["gang"]
    if rng.random() < 0.3:
        other = dict(config, max_replicas=config["max_replicas"] + made.get("gang", 1) * rng.choice([0, 2]))
        other["look_back_period_s"] = rng.choice([look_back, look_back * 2])
        other["upscale_delay_s"] = rng.choice([0, 1, 4])
        made["changes"] = [
            {"tick": ticks // 3, "capacity": rng.choice([None, 20.0, 60.0])},
            {"tick": ticks // 2, "config": other, "capacity": rng.choice([None, 40.0, 60.0, 100.0])},
        ]
    return made


def finish(made, played):
    """The case as it is stored: run lengths, times as differences, totals at some ticks."""
    flat = {}
    for name, rows in made["samples"].items():
        last, flat[name] = 0, []
        for at, queued, running in rows:
            flat[name] += [at - last, queued, running]
            last = at
    totals, every = [], made["ticks"] // 30
    for tick, total in enumerate(played["totals"]):
        if tick % every == 0:
            totals.append(float(f"{total:.11g}"))
    changed = [tick for tick, _ in lengths(played["targets"][1:])]
    made = {key: value for key, value in made.items() if key not in ("samples", "lag", "warm", "seed", "replicas")}
    made |= {"first": played["targets"][0], "running": lengths(played["told"]), "samples": flat}
    if played["from_replicas"]:
        made["replicas"], last = {}, {}
        for at, name, load in played["from_replicas"]:
            made["replicas"].setdefault(name, []).extend([at - last.get(name, 0), load])
            last[name] = at
        made["gone"] = played["gone"]
    made |= {"targets": lengths(played["targets"][1:]), "every": every, "totals": totals}
    assert changed[0] == 0
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--cases", type=int, default=115)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    if ray.__version__ != RAY:
        raise SystemExit(f"ray {ray.__version__} is installed, the values are those of {RAY}")
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    done, left_out, seed = [], [], args.first
    while len(done) < args.cases:
        made = case(seed)
        played = play(made)
        if any(play(made, *how)["targets"] != played["targets"] for how in [(True,), (False, NEAR)]):
            left_out.append(seed)
        else:
            done.append(finish(made, played))
        seed += 1
    capacities = [
        [n, percent, get_capacity_adjusted_num_replicas(n, percent)]
        for n in (0, 1, 2, 3, 5, 7, 10, 33, 1_000)
        for percent in (None, 0.0, 0.1, 1.0, 10.0, 25.0, 33.3, 49.9, 50.0, 55.0, 70.0, 99.9, 100.0)
    ]
    directions = []
    for old in (None, 0.0, 40.0, 100.0):
        for new in (None, 0.0, 40.0, 100.0):
            for apps in (("a",), ("a", "b")):
                for before in (None, "UP", "DOWN"):
                    value = TargetCapacityDirection(before) if before else None
                    got = calculate_target_capacity_direction(schema(old), schema(new, apps), value)
                    directions.append([old, new, apps == ("a",), before, got.value if got else None])
    header = {"made_by": "tools/reference/autoscaling.py", "versions": {"ray": ray.__version__}, "tick_ms": TICK_MS}
    with open(args.out, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"capacities": ' + json.dumps(capacities, separators=(",", ":")))
        file.write(',\n"directions": ' + json.dumps(directions, separators=(",", ":")) + ',\n"cases": [\n')
        file.write(",\n".join(json.dumps(one, separators=(",", ":")) for one in done))
        file.write("\n]}\n")
    moves = sum(len(one["targets"]) - 1 for one in done)
    print(f"{len(done)} loads with {moves} changes of target; left out, as they hang on the last bit: {left_out}")


if __name__ == "__main__":
    main()
