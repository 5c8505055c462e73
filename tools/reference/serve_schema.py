#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["ray[serve]==2.60.0"]
# ///
"""What Ray Serve itself says of configs, for crates/schema: crates/schema/tests/golden/ray.json.

Each case is a whole config. `schema` is the verdict of ray.serve.schema.ServeDeploySchema, which the REST API asks; `deploy` that of
override_deployment_info, which the controller asks when it applies the config to the deployments of the code, here ones with nothing
but defaults. Where Ray refuses, `why` is the beginning of what it says. The samples' configs are cases too.

    python tools/reference/serve_schema.py
"""

import json
import logging
import re
import warnings
from pathlib import Path

import yaml
from ray.serve._private.application_state import override_deployment_info
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parents[2] / "crates/schema/tests"
GRAPH = "mobula.image:text_to_image"
DEFAULT_POLICY = "ray.serve.autoscaling_policy:default_autoscaling_policy"
DEFAULT_ROUTER = "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter"


def top(**fields) -> dict:
    return {"applications": [{"import_path": GRAPH}], **fields}


def app(**fields) -> dict:
    return {"applications": [{"import_path": GRAPH, **fields}]}


def deployment(**fields) -> dict:
    return app(deployments=[{"name": "pipeline", **fields}])


def scaled(**fields) -> dict:
    return deployment(autoscaling_config=fields)


def actor(**fields) -> dict:
    return deployment(ray_actor_options=fields)


def values(make, field: str, *found) -> dict[str, dict]:
    return {f"{field}: {json.dumps(value)}": make(**{field: value}) for value in found}


def cases() -> dict[str, dict]:
    all_of = {
        "nothing": {},
        "no applications": {"applications": []},
        "null applications": {"applications": None},
        "applications are a mapping": {"applications": {}},
        "a field that nobody knows": top(colour="red"),
        "a field of an application that nobody knows": app(colour="red"),
        "a field of a deployment that nobody knows": deployment(colour="red"),
        "no import path": {"applications": [{"name": "a"}]},
        "two applications of one name": {"applications": [{"import_path": GRAPH}, {"import_path": GRAPH, "route_prefix": "/b"}]},
        "two applications of one route": {"applications": [{"import_path": GRAPH}, {"import_path": GRAPH, "name": "b"}]},
        "two applications without a route": {
            "applications": [
                {"import_path": GRAPH, "name": "a", "route_prefix": None},
                {"import_path": GRAPH, "name": "b", "route_prefix": None},
            ]
        },
        "a deployment without a name": app(deployments=[{"num_replicas": 1}]),
        "a deployment that the graph has not": app(deployments=[{"name": "pipelin"}]),
        "a number and scaling": deployment(num_replicas=2, autoscaling_config={"max_replicas": 3}),
        "auto and scaling": deployment(num_replicas="auto", autoscaling_config={"min_replicas": 2}),
        "auto and more at least than Ray's most": deployment(num_replicas="auto", autoscaling_config={"min_replicas": 101}),
        "scaling with more at least than the default most": scaled(min_replicas=2),
        "scaling with the least above the most": scaled(min_replicas=3, max_replicas=2),
        "scaling that begins below its least": scaled(min_replicas=2, initial_replicas=1, max_replicas=3),
        "scaling that begins above its most": scaled(min_replicas=1, initial_replicas=4, max_replicas=3),
        "scaling from none": scaled(min_replicas=0, initial_replicas=0, max_replicas=3),
        "a look back shorter than the interval": scaled(metrics_interval_s=10, look_back_period_s=5),
        "a target above what a replica takes": deployment(max_ongoing_requests=4, autoscaling_config={"target_ongoing_requests": 5}),
        "a default target above what a replica takes": deployment(max_ongoing_requests=1, autoscaling_config={"max_replicas": 2}),
        "a policy in Python": scaled(policy={"policy_function": "builtins:print"}),
        "Ray's policy by name": scaled(policy={"policy_function": DEFAULT_POLICY}),
        "Ray's router by name": deployment(request_router_config={"request_router_class": DEFAULT_ROUTER}),
        "a router in Python": deployment(request_router_config={"request_router_class": "builtins:print"}),
        "an external scaler": app(external_scaler_enabled=True),
        "an external scaler and scaling": app(
            external_scaler_enabled=True, deployments=[{"name": "pipeline", "autoscaling_config": {"max_replicas": 2}}]
        ),
        "an external scaler and auto": app(external_scaler_enabled=True, deployments=[{"name": "pipeline", "num_replicas": "auto"}]),
        "an external scaler and a number": app(external_scaler_enabled=True, deployments=[{"name": "pipeline", "num_replicas": 2}]),
        "a host in an application": app(host="0.0.0.0"),
        "a port in an application": app(port=8000),
        "a local folder as code": app(runtime_env={"working_dir": "./code"}),
        "an archive as code": app(runtime_env={"working_dir": "https://example.org/code.zip", "pip": ["a"], "env_vars": {"A": "b"}}),
        "a local folder as module": app(runtime_env={"py_modules": ["code"]}),
        "a folder of every node as code": app(runtime_env={"working_dir": "local:///code"}),
        "a relative folder of every node as code": app(runtime_env={"working_dir": "local://code"}),
        "code by a protocol that nobody knows": app(runtime_env={"working_dir": "ftp://example.org/code.zip"}),
        "a local folder as code of a deployment": actor(runtime_env={"working_dir": "code"}),
        "one bundle": deployment(placement_group_bundles=[{"CPU": 1}]),
        "bundles apart": deployment(placement_group_bundles=[{"CPU": 1}, {"GPU": 1}], placement_group_strategy="SPREAD"),
        "bundles together": deployment(placement_group_bundles=[{"CPU": 1}, {"GPU": 1}], placement_group_strategy="STRICT_PACK"),
        "a bundle below the default CPU": deployment(placement_group_bundles=[{"CPU": 0.5}]),
        "a bundle below the replica's GPU": deployment(placement_group_bundles=[{"CPU": 1}], ray_actor_options={"num_gpus": 1}),
        "a bundle below the replica's resource": deployment(
            placement_group_bundles=[{"CPU": 1}], ray_actor_options={"resources": {"disk": 1}}
        ),
        "a bundle with the replica's all": deployment(
            placement_group_bundles=[{"CPU": 2, "GPU": 1, "disk": 1}],
            ray_actor_options={"num_cpus": 2, "num_gpus": 1, "resources": {"disk": 0.5}},
        ),
        "no bundle": deployment(placement_group_bundles=[]),
        "a strategy without bundles": deployment(placement_group_strategy="SPREAD"),
        "a strategy that nobody knows": deployment(placement_group_bundles=[{"CPU": 1}], placement_group_strategy="PACKED"),
        "bundles and a number on each machine": deployment(placement_group_bundles=[{"CPU": 1}], max_replicas_per_node=1),
        "labels of a bundle": deployment(placement_group_bundles=[{"CPU": 1}], placement_group_bundle_label_selector=[{"a": "b"}]),
        "labels without bundles": deployment(placement_group_bundle_label_selector=[{"a": "b"}]),
        "labels of too many bundles": deployment(
            placement_group_bundles=[{"CPU": 1}], placement_group_bundle_label_selector=[{"a": "b"}, {"a": "b"}]
        ),
        "a gang": deployment(num_replicas=4, gang_scheduling_config={"gang_size": 2}),
        "a gang that does not divide": deployment(num_replicas=3, gang_scheduling_config={"gang_size": 2}),
        "a gang of the default number": deployment(gang_scheduling_config={"gang_size": 2}),
        "a gang of one": deployment(gang_scheduling_config={"gang_size": 1}),
        "a gang of none": deployment(gang_scheduling_config={"gang_size": 0}),
        "a gang without a size": deployment(num_replicas=4, gang_scheduling_config={}),
        "a gang that restarts alone": deployment(
            num_replicas=4, gang_scheduling_config={"gang_size": 2, "runtime_failure_policy": "RESTART_REPLICA"}
        ),
        "a gang with a strict strategy": deployment(
            num_replicas=4, gang_scheduling_config={"gang_size": 2, "gang_placement_strategy": "STRICT_PACK"}
        ),
        "a gang and a strategy": deployment(
            num_replicas=4, gang_scheduling_config={"gang_size": 2}, placement_group_strategy="PACK"
        ),
        "a gang and a number on each machine": deployment(
            num_replicas=4, gang_scheduling_config={"gang_size": 2}, max_replicas_per_node=2
        ),
        "a gang with scaling that divides": deployment(
            num_replicas="auto", gang_scheduling_config={"gang_size": 2}, autoscaling_config={"min_replicas": 2, "max_replicas": 4}
        ),
        "a gang with scaling that does not divide": deployment(
            num_replicas="auto", gang_scheduling_config={"gang_size": 2}, autoscaling_config={"min_replicas": 1, "max_replicas": 4}
        ),
        "no helpers": deployment(deployment_actors=[]),
        "a helper in Python": deployment(deployment_actors=[{"name": "a", "actor_class": "module:Class"}]),
        "a log with a field that nobody knows": top(logging_config={"colour": True}),
        "a log of a deployment with a field that nobody knows": deployment(logging_config={"colour": True}),
        "a log by number": app(logging_config={"log_level": 10}),
        "a log by a number that is no level": app(logging_config={"log_level": 15}),
        "a log by a name that is no level": app(logging_config={"log_level": "LOUD"}),
        "a log in a format that is none": app(logging_config={"encoding": "XML"}),
        "a log with an attribute": app(logging_config={"additional_log_standard_attrs": ["name"]}),
        "a full log": top(logging_config={"encoding": "JSON", "log_level": "DEBUG", "logs_dir": "/logs", "enable_access_log": False}),
        "traces": top(tracing_config={"enabled": True, "sampling_ratio": 0.5}),
        "traces of more than all": top(tracing_config={"sampling_ratio": 1.5}),
        "traces with a field that nobody knows": top(tracing_config={"colour": True}),
        "variables of the controller": top(controller_options={"runtime_env": {"env_vars": {"A": "b"}}}),
        "a variable of the controller that is no text": top(controller_options={"runtime_env": {"env_vars": {"A": 1}}}),
        "packages of the controller": top(controller_options={"runtime_env": {"pip": ["a"]}}),
        "a field of the controller that nobody knows": top(controller_options={"colour": True}),
        "doors": top(
            http_options={"host": "127.0.0.1", "port": 8901, "root_path": "/x", "request_timeout_s": 5, "keep_alive_timeout_s": 5},
            grpc_options={"port": 9000, "grpc_servicer_functions": ["a:b"], "request_timeout_s": 5, "enable_reflection": False},
        ),
        "a certificate without a key": top(http_options={"ssl_certfile": "a"}),
        "a certificate and a key": top(http_options={"ssl_keyfile": "a", "ssl_certfile": "b"}),
        "a port that is a word": top(http_options={"port": "http"}),
        "functions that are no list": top(grpc_options={"grpc_servicer_functions": "a:b"}),
        "pushing back with 429": deployment(backpressure_config={"status_code": 429, "retry_after_s": 2.5}),
        "pushing back with 500": deployment(backpressure_config={"status_code": 500}),
        "pushing back into the past": deployment(backpressure_config={"retry_after_s": -1}),
        "pushing back with a field that nobody knows": deployment(backpressure_config={"retry_after": 1}),
        "settings of a user": deployment(user_config={"a": {"b": [1, None]}}),
        "settings of a user that are a list": deployment(user_config=[1]),
        "a router's numbers": deployment(
            request_router_config={"request_routing_stats_period_s": 5, "initial_backoff_s": 0.1, "request_router_kwargs": {}}
        ),
        "a router's number that is 0": deployment(request_router_config={"max_backoff_s": 0}),
        "a strategy to fall back on": actor(label_selector={"a": "b"}, fallback_strategy=[{"label_selector": {"a": "c"}}]),
        "an empty strategy to fall back on": actor(fallback_strategy=[{}]),
        "a strategy to fall back on that nobody knows": actor(fallback_strategy=[{"colour": "red"}]),
        "an application's policy": app(autoscaling_policy={"policy_function": DEFAULT_POLICY}),
        "an application's policy that is text": app(autoscaling_policy="a:b"),
        "a location that nobody knows": top(proxy_location="Everywhere"),
        **{f"a location: {place}": top(proxy_location=place) for place in ["EveryNode", "HeadOnly", "Disabled"]},
    }
    all_of |= values(top, "target_capacity", 0, 50.5, 100, 101, -1, None, "all")
    all_of |= values(app, "name", "a", "", None, 5)
    all_of |= values(app, "route_prefix", "/", "/a/b", "a", "/a/", "/{a}", "/-/a", "//", "/a b", "")
    all_of |= values(app, "import_path", "a:b:c", ":a", "a:", "a", "a.", ".a", GRAPH.replace(":", "."), "fruit:app")
    all_of |= values(app, "args", {}, None, [1])
    all_of |= values(app, "external_scaler_enabled", "maybe", None)
    all_of |= values(deployment, "num_replicas", 1, 0, -1, "auto", "many", None, 2.5, 3.0, 10001)
    all_of |= values(deployment, "max_ongoing_requests", 1, 0, -1, 5.0, 2.5, "five", "5", None, True)
    all_of |= values(deployment, "max_queued_requests", -1, 1, 0, -2, 5.0, "5", None)
    all_of |= values(deployment, "graceful_shutdown_timeout_s", 0, 5, -1, "soon", None)
    all_of |= values(deployment, "graceful_shutdown_wait_loop_s", 0, 5, -1)
    all_of |= values(deployment, "health_check_period_s", 0, 5, -1)
    all_of |= values(deployment, "health_check_timeout_s", 0, 5, -1)
    all_of |= values(deployment, "max_replicas_per_node", 1, 100, 101, 0)
    all_of |= values(deployment, "rolling_update_percentage", 0, 0.2, 1, 1.5)
    all_of |= values(deployment, "max_surge_percent", 0, 100, 101, -1, 2.5)
    all_of |= values(deployment, "autoscaling_config", {}, None, "on")
    all_of |= values(deployment, "ray_actor_options", {}, None, [])
    all_of |= values(deployment, "placement_group_bundles", [{"CPU": -1}], [{"CPU": "two"}], {"CPU": 1})
    all_of |= values(scaled, "min_replicas", -1, 1.5)
    all_of |= values(scaled, "max_replicas", 0, 2, None)
    all_of |= values(scaled, "target_ongoing_requests", 0, 0.5, -1)
    all_of |= values(scaled, "metrics_interval_s", 0, 5)
    all_of |= values(scaled, "look_back_period_s", 0, 50)
    all_of |= values(scaled, "upscaling_factor", 0, 0.5, None)
    all_of |= values(scaled, "downscaling_factor", 0, 0.5, None)
    all_of |= values(scaled, "upscale_delay_s", 0, -1)
    all_of |= values(scaled, "downscale_delay_s", 0, -1)
    all_of |= values(scaled, "downscale_to_zero_delay_s", 0, -1, None)
    all_of |= values(scaled, "aggregation_function", "mean", "MAX", "min", "median")
    all_of |= values(scaled, "smoothing_factor", 0, 0.5)
    all_of |= values(scaled, "upscale_smoothing_factor", 0, 0.5)
    all_of |= values(scaled, "downscale_smoothing_factor", 0, 0.5)
    all_of |= values(scaled, "target_num_ongoing_requests_per_replica", 1)
    all_of |= values(deployment, "max_concurrent_queries", 10)
    all_of |= values(actor, "num_cpus", 0, 0.5, 2.5, -1, "two")
    all_of |= values(actor, "num_gpus", 0, 0.5, 1, 1.5, 2, -1)
    all_of |= values(actor, "memory", 0, 1e9, -1, "lots")
    all_of |= values(actor, "resources", {}, {"disk": 1}, {"disk": -1}, {"CPU": 1}, {"GPU": 1}, {"memory": 1})
    all_of |= values(actor, "accelerator_type", "L4", None)
    selectors = ["a", "!a", "in(a,b)", "!in(a, b)", "", "-a", "in()", "!!in(a)", "in(a,b"]
    all_of |= values(actor, "label_selector", {}, None, *({"zone": text} for text in selectors))
    all_of |= values(actor, "label_selector", {"ray.io/zone": "a"}, {"-a": "b"}, {"a/b/": "c"}, {"a" * 64: "b"})
    return all_of


def reason(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error))
    text = re.sub(r"For further information visit \S+", "", text)
    return text[:200]


def code(name: str) -> DeploymentInfo:
    """A deployment of the code, with nothing but defaults."""
    replica = ReplicaConfig.create(lambda: None, ray_actor_options={})
    return DeploymentInfo(DeploymentConfig(), replica, start_time_ms=0, deployer_job_id="")


def verdict(document: dict, names: list[str]) -> dict:
    try:
        schema = ServeDeploySchema.model_validate(json.loads(json.dumps(document)))
    except Exception as error:  # Ray raises whatever its validators do.
        return {"schema": False, "deploy": False, "why": reason(error)}
    try:
        for application in schema.applications:
            override_deployment_info({name: code(name) for name in names}, application)
    except Exception as error:
        return {"schema": True, "deploy": False, "why": reason(error)}
    return {"schema": True, "deploy": True}


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found = [
        {"name": name, "document": document, **verdict(document, ["preprocess", "pipeline"])} for name, document in cases().items()
    ]
    for path in sorted((ROOT / "samples").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if "applications" not in document:
                if document.get("kind") != "RayService":
                    continue
                document = yaml.safe_load(document["spec"]["serveConfigV2"])
            names = {d["name"] for app in document["applications"] for d in app.get("deployments", [])}
            found.append({"name": path.name, "document": document, **verdict(document, sorted(names))})
    lines = ",\n".join(json.dumps(case) for case in found)
    out = ROOT / "golden/ray.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(f"[\n{lines}\n]\n")
    print(f"{len(found)} cases, {sum(case['deploy'] for case in found)} accepted")


main()
