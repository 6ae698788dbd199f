//! What is added to a pod: the container that programs the capture, the sidecar, their volumes and labels.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::annotations::{ImageType, Overrides};
use super::config::InjectConfig;
use super::decide::AskedBy;
use super::lifecycle::Shape;
use super::pod::{self, TypedPod};
use super::probes::AppProbes;
use super::refuse::PROXY_ID;
use super::status::{self, Status};
use super::warning::Warning;
use super::workload;
use super::{Refusal, resources};

/// The container that programs the capture.
pub const INIT_CONTAINER: &str = "ringmail-init";

/// What the sidecar's container may be called.
pub const SIDECAR_CONTAINERS: [&str; 3] = ["istio-proxy", "linkerd-proxy", "ringmail-proxy"];

/// Ports of the sidecar: no container may have them.
pub(super) const SIDECAR_PORTS: [i32; 7] = [4191, 15000, 15001, 15002, 15006, 15020, 15021];
pub(super) const STATS_PORT: u16 = 15020;
const HEALTH_PORT: u16 = 15021;
const LINKERD_ADMIN_PORT: u16 = 4191;

const TOKEN_VOLUME: &str = "ringmail-token";
const BUNDLE_VOLUME: &str = "ringmail-ca-root-cert";
const STATE_VOLUME: &str = "ringmail-state";
const RUN_VOLUME: &str = "ringmail-init-run";

/// Volumes of ours: no other may have their names.
pub(super) const VOLUMES: [&str; 4] = [TOKEN_VOLUME, BUNDLE_VOLUME, STATE_VOLUME, RUN_VOLUME];

/// Where the sidecar keeps what it needs.
pub(super) const MOUNT_PATHS: [&str; 3] =
    ["/var/run/secrets/tokens", "/var/run/secrets/ringmail", "/run/ringmail"];

/// Who the token is for; the CA and control take no other.
const TOKEN_AUDIENCE: &str = "ringmail-ca";
/// Renewed by the kubelet at four fifths of it.
const TOKEN_SECONDS: u32 = 43_200;

/// A pod that waits for the CA must come up when the CA does, be it after a week.
const STARTUP_FAILURES: u32 = 7 * 24 * 3600;

/// A sidecar that is closed to others for a while leaves its Services within a quarter of a minute.
const READINESS_PERIOD_SECONDS: i32 = 5;
const READINESS_FAILURES: i32 = 3;
const PROBE_TIMEOUT_SECONDS: i32 = 3;

/// What is added, but for the probes, which the pod has still to give up.
pub(super) struct Added {
    init: Value,
    sidecar: Value,
    native: bool,
    volumes: Vec<Value>,
    labels: BTreeMap<&'static str, String>,
    default_container: Option<String>,
}

/// All that a sidecar is made from.
pub(super) struct Plan<'a> {
    pub(super) pod: &'a TypedPod,
    pub(super) overrides: &'a Overrides,
    pub(super) shape: &'a Shape,
    pub(super) workload: &'a str,
    pub(super) asked_by: AskedBy,
    pub(super) config: &'a InjectConfig,
}

impl Plan<'_> {
    pub(super) fn added(&self, warnings: &mut Vec<Warning>) -> Added {
        let (pod, overrides, shape) = (self.pod, self.overrides, self.shape);
        let labels = workload::added_labels(&pod.meta.labels, self.workload);
        let first = pod.spec.containers.first().map(|container| container.name.clone());
        let has_default = pod.meta.annotations.contains_key(status::DEFAULT_CONTAINER);
        let (mut init, mut sidecar) = (init(overrides, self.config), self.sidecar(&labels, warnings));
        if resources::is_guaranteed(&sidecar["resources"]) {
            // Every container counts for the pod's class of service.
            init["resources"] = sidecar["resources"].clone();
        } else if pod.containers().all(|container| resources::is_guaranteed(&json!(container.resources))) {
            let text = "the pod was of class Guaranteed and is Burstable now: set equal requests and limits of CPU and \
                        memory for the sidecar to keep it";
            warnings.push(Warning::field("resources", text));
        }
        if let Some(policy) = overrides.pull_policy.or(self.config.image_pull_policy.as_deref()) {
            init["imagePullPolicy"] = json!(policy);
            sidecar["imagePullPolicy"] = json!(policy);
        }
        Added {
            init,
            sidecar,
            native: shape.native,
            volumes: self.volumes(),
            labels,
            default_container: first.filter(|_| !shape.native && !has_default),
        }
    }

    fn sidecar(&self, labels: &BTreeMap<&'static str, String>, warnings: &mut Vec<Warning>) -> Value {
        let (overrides, config) = (self.overrides, self.config);
        let mut sidecar = json!({
            "name": container_name(self.asked_by),
            "image": image(overrides, config, warnings),
            "env": self.environment(labels),
            "ports": ports(),
            "readinessProbe": readiness(overrides),
            "resources": resources::of_sidecar(overrides, config, warnings),
            "securityContext": restricted(),
            "volumeMounts": mounts(overrides),
        });
        if self.shape.native {
            sidecar["restartPolicy"] = json!("Always");
            sidecar["startupProbe"] = json!({
                "httpGet": {"path": "/healthz/ready", "port": HEALTH_PORT},
                "periodSeconds": 1, "timeoutSeconds": PROBE_TIMEOUT_SECONDS,
                "failureThreshold": STARTUP_FAILURES,
            });
        } else {
            let command = ["/usr/local/bin/ringmail-proxy", "--wait=86400"];
            sidecar["lifecycle"] = json!({"postStart": {"exec": {"command": command}}});
        }
        sidecar
    }

    /// Ours, and those that the user wants mounted and the pod does not have.
    fn volumes(&self) -> Vec<Value> {
        let mut volumes = volumes();
        for volume in &self.overrides.user_volumes {
            let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            let is_there = self.pod.spec.volumes.iter().flatten().any(|there| there.name == name)
                || volumes.iter().any(|there| there["name"] == name);
            if !is_there {
                volumes.push(volume.clone());
            }
        }
        volumes
    }

    fn environment(&self, labels: &BTreeMap<&'static str, String>) -> Vec<Value> {
        let mut environment = environment(self.pod, labels, self.overrides, self.workload, self.config);
        let drain = match self.shape.drain.subsec_millis() {
            0 => format!("{}s", self.shape.drain.as_secs()),
            _ => format!("{}ms", self.shape.drain.as_millis()),
        };
        environment.push(json!({"name": "RINGMAIL_DRAIN_TIMEOUT", "value": drain}));
        environment
    }
}

impl Added {
    /// Puts it all into the pod, with what the sidecar is to ask of the application.
    pub(super) fn put_into(mut self, pod: &mut Value, probes: &AppProbes) -> Result<(), Refusal> {
        if !probes.is_empty() {
            let text = json!(probes).to_string();
            if let Some(environment) = self.sidecar["env"].as_array_mut() {
                environment.push(json!({"name": status::APP_PROBES, "value": status::escaped(&text)}));
            }
        }
        let status = self.status();
        let metadata = pod::mapping(pod, "metadata")?;
        for (key, more) in
            [("labels", self.labels_json()), ("annotations", status.annotations(&self.default_container))]
        {
            let place = metadata.entry(key).or_insert(Value::Null);
            if place.is_null() {
                *place = json!({});
            }
            match place.as_object_mut() {
                Some(place) => place.extend(more),
                None => return Err(Refusal::NotAPod { fault: format!("metadata.{key} is not a mapping") }),
            }
        }
        let spec = pod::mapping(pod, "spec")?;
        let first = if self.native {
            vec![self.init, self.sidecar]
        } else {
            pod::list(spec, "containers")?.insert(0, self.sidecar);
            vec![self.init]
        };
        pod::list(spec, "initContainers")?.splice(0..0, first);
        pod::list(spec, "volumes")?.extend(self.volumes);
        Ok(())
    }

    fn labels_json(&self) -> serde_json::Map<String, Value> {
        self.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    }

    fn status(&self) -> Status {
        let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
        let (init, sidecar) = (name(&self.init), name(&self.sidecar));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            init_containers: if self.native { vec![init, sidecar.clone()] } else { vec![init] },
            containers: if self.native { Vec::new() } else { vec![sidecar] },
            volumes: self.volumes.iter().map(name).collect(),
            labels: self.labels.keys().map(|name| (*name).to_owned()).collect(),
            revision: "default".to_owned(),
        }
    }
}

fn container_name(asked_by: AskedBy) -> &'static str {
    match asked_by {
        AskedBy::Istio => "istio-proxy",
        AskedBy::Linkerd => "linkerd-proxy",
        AskedBy::Ringmail => "ringmail-proxy",
    }
}

fn init(overrides: &Overrides, config: &InjectConfig) -> Value {
    let mut init = json!({
        "name": INIT_CONTAINER,
        "image": config.init_image,
        // What it could not do is then in `kubectl describe pod`.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": resources::of_init(),
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": RUN_VOLUME, "mountPath": "/run"}],
    });
    let flags = overrides.capture.flags();
    if !flags.is_empty() {
        init["args"] = json!(flags);
    }
    init
}

/// What Pod Security's *restricted* asks of a container.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "runAsUser": PROXY_ID, "runAsGroup": PROXY_ID, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

fn ports() -> Value {
    json!([
        {"name": "http-envoy-prom", "containerPort": STATS_PORT, "protocol": "TCP"},
        {"name": "status-port", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        {"name": "linkerd-admin", "containerPort": LINKERD_ADMIN_PORT, "protocol": "TCP"},
    ])
}

fn readiness(overrides: &Overrides) -> Value {
    let wanted = &overrides.readiness;
    json!({
        "httpGet": {"path": "/healthz/ready", "port": HEALTH_PORT},
        "initialDelaySeconds": wanted.initial_delay.unwrap_or(0),
        "periodSeconds": wanted.period.unwrap_or(READINESS_PERIOD_SECONDS),
        "failureThreshold": wanted.failures.unwrap_or(READINESS_FAILURES),
        "timeoutSeconds": PROBE_TIMEOUT_SECONDS,
    })
}

fn volumes() -> Vec<Value> {
    let token =
        json!({"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "ringmail-token"});
    vec![
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}),
        json!({"name": BUNDLE_VOLUME, "configMap": {"name": "ringmail-ca-root-cert"}}),
        json!({"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ]
}

fn mounts(overrides: &Overrides) -> Value {
    let [tokens, bundle, state] = MOUNT_PATHS;
    let mut mounts = vec![
        json!({"name": TOKEN_VOLUME, "mountPath": tokens, "readOnly": true}),
        json!({"name": BUNDLE_VOLUME, "mountPath": bundle, "readOnly": true}),
        json!({"name": STATE_VOLUME, "mountPath": state}),
    ];
    mounts.extend(overrides.user_mounts.iter().cloned());
    Value::Array(mounts)
}

fn environment(
    pod: &TypedPod,
    added: &BTreeMap<&'static str, String>,
    overrides: &Overrides,
    workload: &str,
    config: &InjectConfig,
) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment = vec![
        field("RINGMAIL_POD_NAME", "metadata.name"),
        field("RINGMAIL_NAMESPACE", "metadata.namespace"),
        field("RINGMAIL_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("RINGMAIL_NODE_NAME", "spec.nodeName"),
        field("RINGMAIL_POD_ADDRESSES", "status.podIPs"),
    ];
    let labels = pod.meta.labels.iter().map(|(name, value)| (name.as_str(), value));
    let labels: BTreeMap<_, _> = labels.chain(added.iter().map(|(name, value)| (*name, value))).collect();
    let labels: Vec<_> = labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut settings = BTreeMap::from([
        ("discovery", "control".to_owned()),
        ("labels", labels.join(",")),
        ("trust_domain", config.trust_domain.clone()),
        ("cluster", config.cluster.clone()),
        ("ca_address", config.ca_address.clone()),
        ("discovery_address", config.discovery_address.clone()),
        ("log_level", overrides.log_level.clone().unwrap_or_else(|| config.log_level.clone())),
        ("log_format", overrides.log_format.unwrap_or(&config.log_format).to_owned()),
        ("access_log", overrides.access_log.unwrap_or(&config.access_log).to_owned()),
    ]);
    // Without its own name the proxy takes the pod's.
    if !workload.is_empty() {
        settings.insert("workload", workload.to_owned());
    }
    // Without a limit of CPU the sidecar would take the whole node for its own.
    let is_limited = overrides.resources.cpu.limit.is_some() || config.proxy_cpu_limit.is_some();
    if let Some(workers) = overrides.workers.or((!is_limited).then_some(1)) {
        settings.insert("workers", workers.to_string());
    }
    #[cfg(feature = "next-schema")]
    settings.insert("novelty", "on".to_owned());
    for (name, value) in &config.proxy_settings {
        settings.insert(name, value.clone());
    }
    let named = |(name, value): (&str, String)| json!({"name": format!("RINGMAIL_{}", name.to_uppercase()), "value": status::escaped(&value)});
    environment.extend(settings.into_iter().map(named));
    environment
}

fn image(overrides: &Overrides, config: &InjectConfig, warnings: &mut Vec<Warning>) -> String {
    if let Some(image) = &overrides.image {
        return image.clone();
    }
    let kind = overrides.image_type.unwrap_or(config.proxy_image_type);
    if config.proxy_image.contains('@') {
        if overrides.image_type.is_some_and(|kind| kind != config.proxy_image_type) {
            let text =
                format!("{}: an image that is named by its digest has no other type", config.proxy_image);
            warnings.push(Warning::field("sidecar.istio.io/proxyImageType", text));
        }
        return config.proxy_image.clone();
    }
    let plain = config.proxy_image.strip_suffix("-distroless").unwrap_or(&config.proxy_image);
    match kind {
        ImageType::Default => plain.to_owned(),
        ImageType::Distroless => format!("{plain}-distroless"),
    }
}
