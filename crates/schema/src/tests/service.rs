//! KubeRay's RayService, by itself and among other manifests.

use std::time::Duration;

use mobula_serving::place::{Amounts, Kind};

use super::{parsed, problems, said};
use crate::{Verdict, WorkerGroup};

/// A manifest with these lines in its cluster.
fn manifest(cluster: &str) -> String {
    let cluster: String = cluster.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: ray.io/v1
kind: RayService
metadata: {{name: a}}
spec:
  serveConfigV2: |
    applications:
    - import_path: mobula.image:text_to_image
  rayClusterConfig:
{cluster}"
    )
}

fn groups(cluster: &str) -> Vec<WorkerGroup> {
    parsed(&manifest(cluster)).config.worker_groups
}

#[test]
fn a_group_that_grows_has_its_bounds_and_one_that_does_not_its_number() {
    let list = "
workerGroupSpecs:
- {groupName: a, replicas: 2, minReplicas: 1, maxReplicas: 4, numOfHosts: 2, rayStartParams: {}, template: {}}
- {groupName: b, minReplicas: 1, maxReplicas: 2147483647, idleTimeoutSeconds: 5}
- {groupName: c, replicas: 9, maxReplicas: 4}
- {groupName: d, maxReplicas: 0}
";
    let numbers = |cluster: &str| {
        let groups = groups(cluster);
        groups
            .iter()
            .map(|g| (g.min, g.max, g.idle_timeout.as_secs()))
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(list), [(4, 4, 60), (1, 1, 5), (4, 4, 60)]);
    let grows = format!(
        "enableInTreeAutoscaling: true\nautoscalerOptions: {{idleTimeoutSeconds: 30, version: v2}}{list}"
    );
    assert_eq!(numbers(&grows), [(2, 8, 30), (1, 10_000, 5), (0, 4, 30)]);
}

#[test]
fn a_pods_resources_are_its_limits_over_its_requests_and_start_parameters_over_both() {
    let found = groups(
        r#"
workerGroupSpecs:
- groupName: a
  replicas: 1
  rayStartParams: {num-cpus: "3", resources: '"{\"TPU\": 8, \"disk\": 0.5}"'}
  labels: {pool: fast}
  template:
    spec:
      containers:
      - resources:
          requests: {cpu: 500m, memory: 1Gi, nvidia.com/gpu: 1}
          limits: {memory: 2G, google.com/tpu: "4", ephemeral-storage: 1Gi, nvidia.com/gpu: 2}
      - resources: {limits: {cpu: 64}}
      nodeSelector: {cloud.google.com/gke-accelerator: nvidia-l4, pool: slow}
"#,
    );
    let expected = Amounts {
        cpus: 30_000,
        gpus: 20_000,
        memory: 2_000_000_000,
        vram: 0,
        custom: [("TPU".into(), 80_000), ("disk".into(), 5_000)].into(),
    };
    assert_eq!(found[0].resources, expected);
    let labels = [
        ("cloud.google.com/gke-accelerator", "nvidia-l4"),
        ("pool", "fast"),
    ];
    assert_eq!(
        found[0].labels,
        labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    );
    assert_eq!(found[0].idle_timeout, Duration::from_secs(60));
}

#[test]
fn groups_with_accelerators_draw_and_the_others_prepare() {
    let kinds = |cluster: &str| groups(cluster).iter().map(|g| g.kind).collect::<Vec<_>>();
    let pods = |gpu: &str| {
        format!("template: {{spec: {{containers: [{{resources: {{limits: {{cpu: 1{gpu}}}}}}}]}}}}")
    };
    let both = format!(
        "workerGroupSpecs:\n- {{groupName: a, replicas: 1, {}}}\n- {{groupName: b, replicas: 1, {}}}",
        pods(", nvidia.com/gpu: 1"),
        pods("")
    );
    assert_eq!(kinds(&both), [Kind::Inference, Kind::Preprocess]);
    let plain = format!("workerGroupSpecs:\n- {{groupName: b, replicas: 1, {}}}", pods(""));
    assert_eq!(kinds(&plain), [Kind::Inference], "nothing else could draw");
    assert_eq!(kinds("headGroupSpec: {}"), []);
}

#[test]
fn what_belongs_to_rays_processes_is_noted() {
    let text = "
apiVersion: ray.io/v1alpha1
kind: RayService
metadata: {name: a}
spec:
  serviceUnhealthySecondThreshold: 900
  deploymentUnhealthySecondThreshold: 300
  upgradeStrategy: {type: NewCluster}
  rayClusterDeletionDelaySeconds: 60
  serveService: {}
  excludeHeadPodFromServeSvc: true
  managedBy: kueue
  suspend: false
  serveConfigV2: |
    applications: []
  rayClusterConfig:
    rayVersion: 2.46.0
    gcsFaultToleranceOptions: {}
    headGroupSpec: {template: {}}
    authOptions: {mode: token}
";
    let notes = parsed(text).notes;
    for (field, words) in [
        (
            "spec.serviceUnhealthySecondThreshold",
            "KubeRay itself takes it and does not read it",
        ),
        (
            "spec.deploymentUnhealthySecondThreshold",
            "KubeRay itself takes it and does not read it",
        ),
        ("spec.upgradeStrategy", "replicas are replaced in place"),
        ("spec.rayClusterDeletionDelaySeconds", "no second cluster"),
        ("spec.serveService", "mobula-proxy has a service of its own"),
        ("spec.excludeHeadPodFromServeSvc", "there is no head"),
        ("spec.managedBy", "operator"),
        ("spec.rayClusterConfig.rayVersion", "no Ray runs here"),
        (
            "spec.rayClusterConfig.gcsFaultToleranceOptions",
            "the controller keeps its state itself",
        ),
        ("spec.rayClusterConfig.headGroupSpec", "stand for the head"),
        ("spec.rayClusterConfig.authOptions", "of Ray's dashboard"),
    ] {
        let (verdict, why) = said(&notes, field);
        assert_eq!(verdict, Verdict::Ignored, "{field}");
        assert!(why.contains(words), "{field}: {why}");
    }
}

#[test]
fn problems_have_the_lines_and_paths_of_the_manifest() {
    let text = "
apiVersion: ray.io/v1
kind: RayService
spec:
  serveConfigV2: |
    applications:
    - import_path: mobula.image:text_to_image
      deployments:
      - name: pipeline
        max_concurrent_queries: 0
  suspend: true
  rayClusterConfig:
    workerGroupSpecs:
    - groupName: a
      minReplicas: 5
      maxReplicas: 2
    - minReplicas: 1
      rayStartParams: {resources: what}
";
    let found = problems(text);
    let expected = [
        "line 10: spec.serveConfigV2.applications[0].deployments[0].max_concurrent_queries: must be a whole number from 1 to \
         100000, not 0",
        "line 11: spec.suspend: stops everything; delete the applications instead",
        "line 14: spec.rayClusterConfig.workerGroupSpecs[0]: minReplicas (5) is over maxReplicas (2)",
        "line 17: spec.rayClusterConfig.workerGroupSpecs[1].groupName: is required: what the group is called",
        "line 18: spec.rayClusterConfig.workerGroupSpecs[1].rayStartParams.resources: must be resources in JSON, such as \
         {\"TPU\": 4}: expected value at line 1 column 1",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_config_in_one_line_has_the_line_of_its_field() {
    let text = "
apiVersion: ray.io/v1
kind: RayService
spec:
  serveConfigV2: \"applications:\\n- import_path: fruit:app\\n\"
";
    let found = problems(text);
    assert!(
        found[0].starts_with("line 5: spec.serveConfigV2.applications[0].import_path: "),
        "{found:?}"
    );
}

#[test]
fn a_config_that_is_no_yaml_is_told_of_in_the_manifest() {
    let text = "apiVersion: ray.io/v1\nkind: RayService\nspec:\n  serveConfigV2: |\n    applications: [\n";
    let found = problems(text);
    assert!(found[0].contains("spec.serveConfigV2: is no YAML: "), "{found:?}");
}

#[test]
fn manifests_without_a_config_are_refused() {
    for (text, words) in [
        ("apiVersion: ray.io/v1\nkind: RayService\n", "spec: is required"),
        (
            "apiVersion: ray.io/v1\nkind: RayService\nspec: {}\n",
            "spec.serveConfigV2: is required",
        ),
        (
            "apiVersion: ray.io/v1\nkind: RayService\nspec: {serveConfig: {}, serveConfigV2: 'applications: []'}\n",
            "spec.serveConfig: is not supported: it is the format before serveConfigV2",
        ),
        (
            "apiVersion: ray.io/v2\nkind: RayService\nspec: {serveConfigV2: 'applications: []'}\n",
            "apiVersion: must be one of",
        ),
        (
            "apiVersion: ray.io/v1\nkind: RayCluster\nspec: {}\n",
            "is of kind RayCluster; of Kubernetes' kinds only RayService",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n---\napiVersion: v1\nkind: Namespace\n",
            "holds several documents and no RayService among them",
        ),
        (
            "applications: []\n---\napplications: []\n",
            "document 1: is no manifest",
        ),
        (
            "apiVersion: ray.io/v1\nkind: RayService\nspec: {serveConfigV2: 'applications: []', colour: red}\n",
            "spec.colour: is not a known field",
        ),
    ] {
        let found = problems(text).join("\n");
        assert!(found.contains(words), "{words}: {found}");
    }
    let one = "apiVersion: ray.io/v1\nkind: RayService\nspec: {serveConfigV2: 'applications: []'}\n";
    let found = problems(&format!("{one}---\n{one}"));
    assert!(
        found[0].contains("document 2: is a second RayService"),
        "{found:?}"
    );
}
