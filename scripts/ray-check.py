"""What scripts/ray-cli.sh cannot say in a shell: Ray's own models over what the mesh answers. Runs in Ray's environment.

prepare SAMPLE OUT      a sample as `serve deploy` takes it, to run on any machine: fake model, no GPU, at most two replicas
status STATUS NAME...   the output of `serve status` has these applications, and they run
running CONFIG          the mesh runs the config's applications; exit code 1 when it does not yet
deployed CONFIG STATUS  `serve status` says that they run, and GET is ServeInstanceDetails
config CONFIG SHOWN     `serve config` shows what was deployed
gone                    the mesh has no application; exit code 1 when it has some yet
"""

import argparse
import json
import os
import sys
import urllib.request

import yaml
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails


def load(path):
    with open(path) as file:
        return yaml.safe_load(file)


def get(rest):
    token = os.environ.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{rest}/api/serve/applications/", headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def details(rest):
    return ServeInstanceDetails(**get(rest))


def names(config):
    return {application.get("name", "default") for application in config["applications"]}


def prepare(sample, out):
    with open(sample) as file:
        documents = list(yaml.safe_load_all(file))
    for document in documents:
        if document.get("kind") == "RayService":
            config = yaml.safe_load(document["spec"]["serveConfigV2"])
            break
    else:
        config = documents[0]
    # What no machine of a test has: their ports, hardware, labels and models.
    for field in ("proxy_location", "http_options", "grpc_options", "target_capacity"):
        config.pop(field, None)
    for application in config["applications"]:
        application["args"] = {**(application.get("args") or {}), "model": "fake"}
        for deployment in application.get("deployments", []):
            for field in (
                "placement_group_bundles",
                "placement_group_strategy",
                "placement_group_bundle_label_selector",
                "gang_scheduling_config",
                "max_replicas_per_node",
            ):
                deployment.pop(field, None)
            deployment["ray_actor_options"] = {"num_cpus": 0.1}
            if isinstance(deployment.get("num_replicas"), int):
                deployment["num_replicas"] = min(deployment["num_replicas"], 2)
    ServeDeploySchema.model_validate(config)
    with open(out, "w") as file:
        yaml.safe_dump(config, file, sort_keys=False)


def status(path, wanted):
    shown = load(path)["applications"]
    for name in wanted:
        application = shown[name]
        assert application["status"] == "RUNNING", application
        for deployment in application["deployments"].values():
            assert deployment["status"] == "HEALTHY", deployment
            assert set(deployment["replica_states"]) <= {"RUNNING"}, deployment


def running(config, rest):
    applications = details(rest).applications
    wanted = names(load(config))
    return set(applications) == wanted and all(
        application.status.value == "RUNNING"
        and all(deployment.status.value == "HEALTHY" for deployment in application.deployments.values())
        for application in applications.values()
    )


def deployed(config, path, rest):
    wanted = load(config)
    status(path, names(wanted))
    found = details(rest)
    for application in wanted["applications"]:
        name = application.get("name", "default")
        told = found.applications[name]
        assert told.deployed_app_config is not None, name
        assert told.deployed_app_config.model_dump(exclude_unset=True)["args"]["model"] == "fake"
        assert told.source.value == "declarative", told.source
        assert told.deployment_topology.ingress_deployment in told.deployments
        for deployment in told.deployments.values():
            assert len(deployment.replicas) == deployment.target_num_replicas, deployment.name
            assert all(replica.pid for replica in deployment.replicas)
    assert all(proxy.status.value == "HEALTHY" for proxy in found.proxies.values())
    assert found.proxies and found.controller_info.node_id
    groups = {(group.route_prefix, group.protocol.value) for group in found.target_groups}
    for application in wanted["applications"]:
        route = application.get("route_prefix", "/")
        if route is not None:
            assert (route, "HTTP") in groups, groups


def config(path, shown):
    wanted = load(path)
    for application in wanted["applications"]:
        for deployment in application.get("deployments", []):
            scaling = deployment.get("autoscaling_config", {})
            # Old names are shown by their new ones.
            if "target_num_ongoing_requests_per_replica" in scaling:
                scaling["target_ongoing_requests"] = scaling.pop("target_num_ongoing_requests_per_replica")
    wanted = ServeDeploySchema.model_validate(wanted).model_dump(exclude_unset=True)["applications"]
    with open(shown) as file:
        told = list(yaml.safe_load_all(file))
    told = ServeDeploySchema.model_validate({"applications": told}).model_dump(exclude_unset=True)["applications"]
    by_name = lambda applications: {a.get("name", "default"): a for a in applications}  # noqa: E731
    wanted, told = by_name(wanted), by_name(told)
    assert wanted == told, f"deployed:\n{yaml.safe_dump(wanted)}\nshown:\n{yaml.safe_dump(told)}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what")
    arguments.add_argument("rest_of", nargs="*")
    arguments.add_argument("--rest", default="")
    given = arguments.parse_args()
    match given.what, given.rest_of:
        case "prepare", [sample, out]:
            prepare(sample, out)
        case "status", [path, *wanted]:
            status(path, wanted)
        case "running", [path]:
            return 0 if running(path, given.rest) else 1
        case "deployed", [path, told]:
            deployed(path, told, given.rest)
        case "config", [path, told]:
            config(path, told)
        case "gone", []:
            return 0 if not details(given.rest).applications else 1
        case _:
            arguments.error("see --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
