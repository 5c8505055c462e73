"""Names, types, tags and buckets of Ray Serve's metrics, read from its source: the list that our own are compared with.

    pip download --no-deps ray==2.60.0 && unzip -q ray-*.whl 'ray/serve/*' -d SOURCE
    python tools/reference/ray_metrics.py SOURCE > crates/kit/tests/golden/ray_metrics.tsv

Nothing is imported and nothing runs: the source is parsed. Counters are named as Prometheus sees them, with `_total`. What
runs in a replica has its deployment, replica and application as tags besides its own (`_add_serve_metric_tags`).
"""

import ast
import pathlib
import sys

TYPES = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram"}
# Parts whose metrics are made in a replica, by `ray.serve.metrics`.
IN_REPLICA = {"batching.py", "multiplex.py", "_private/replica.py"}
REPLICA_TAGS = ("deployment", "replica", "application")
# request_ingress_metrics.py names its metrics by protocol; event loops are of parts that we do not have.
PROTOCOLS = ("http", "grpc")


def constants(root):
    """Bucket tables that constants.py gives names, with the defaults of what the environment may override."""
    known = {}
    for node in ast.parse((root / "_private/constants.py").read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or getattr(node, "value", None) is None:
            continue
        value = node.value
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "parse_latency_buckets":
            value = value.args[1]
        if isinstance(value, ast.Name):
            known[target.id] = known.get(value.id)
            continue
        try:
            known[target.id] = ast.literal_eval(value)
        except ValueError:
            pass
    return known


def names(node):
    """What a name can be: one string, or one for each protocol."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        made = []
        for protocol in PROTOCOLS:
            parts = (part.value if isinstance(part, ast.Constant) else protocol for part in node.values)
            made.append("".join(parts))
        return made
    return []


def tags(node, scope):
    """What tag keys can be: a tuple, or either branch of a choice."""
    if node is None:
        return [()]
    if isinstance(node, ast.IfExp):
        return tags(node.body, scope) + tags(node.orelse, scope)
    if isinstance(node, ast.Name):
        return tags(scope[node.id], scope) if node.id in scope else []
    try:
        return [tuple(ast.literal_eval(node))]
    except ValueError:
        return []


def rows(file, root, known):
    tree = ast.parse(file.read_text())
    scope = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    part = str(file.relative_to(root))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        kind = TYPES.get(getattr(call.func, "attr", getattr(call.func, "id", "")))
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        name = given.get("name", call.args[0] if call.args else None)
        if kind is None or name is None:
            continue
        buckets = given.get("boundaries")
        if isinstance(buckets, ast.Name):
            buckets = known.get(buckets.id, [])
        else:
            buckets = ast.literal_eval(buckets) if isinstance(buckets, ast.List) else []
        for name in names(name):
            if not name.startswith("serve_"):
                continue
            if kind == "counter" and not name.endswith("_total"):
                name += "_total"
            for keys in tags(given.get("tag_keys"), scope):
                keys = set(keys) | (set(REPLICA_TAGS) if part in IN_REPLICA else set())
                listed = " ".join(f"{edge:g}" if edge < 1e5 else str(int(edge)) for edge in buckets or [])
                yield "\t".join((name, kind, " ".join(sorted(keys)), listed))


def main():
    root = pathlib.Path(sys.argv[1]) / "ray/serve"
    known = constants(root)
    files = [f for f in root.rglob("*.py") if f.name != "metrics.py" and "tests" not in f.parts and "llm" not in f.parts]
    for row in sorted({row for file in files for row in rows(file, root, known)}):
        print(row)


if __name__ == "__main__":
    main()
