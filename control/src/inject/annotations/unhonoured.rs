//! Annotations that are known and mean nothing here, or that nobody knows: none is passed over in silence.

use super::super::warning::Warning;
use super::Reader;

/// One that cannot be honoured: the values that ask for nothing else than what holds anyway, what would have been
/// honoured, and what holds instead.
struct Unhonoured {
    name: &'static str,
    silent: &'static [&'static str],
    expected: &'static str,
    instead: &'static str,
}

const fn one(
    name: &'static str,
    silent: &'static [&'static str],
    expected: &'static str,
    instead: &'static str,
) -> Unhonoured {
    Unhonoured { name, silent, expected, instead }
}

const NONE: &str = "no such annotation";
const NO_ENVOY: &str = "there is no Envoy to set up";
const BY_POLICY: &str = "PeerAuthentication and AuthorizationPolicy decide";
const ONE_LEVEL: &str = "the sidecar has one log level";

const TABLE: [Unhonoured; 54] = [
    one("ambient.istio.io/bypass-inbound-capture", &["false"], "false", "inbound traffic is captured"),
    one("ambient.istio.io/dns-capture", &["false"], "false", "DNS is not captured"),
    one("ambient.istio.io/redirection", &["disabled"], "disabled", "the pod has a sidecar"),
    one(
        "config.alpha.linkerd.io/proxy-wait-before-exit-seconds",
        &["0"],
        "0",
        "the sidecar serves until the application has ended",
    ),
    one("config.linkerd.io/admin-port", &["4191"], "4191", "4191 holds"),
    one(
        "config.linkerd.io/close-wait-timeout",
        &[],
        NONE,
        "half-closed connections end after the sidecar's half_close_timeout",
    ),
    one("config.linkerd.io/control-port", &["4190"], NONE, "there is no tap"),
    one("config.linkerd.io/debug-image", &[], NONE, "there is no debug container"),
    one("config.linkerd.io/debug-image-pull-policy", &[], NONE, "there is no debug container"),
    one("config.linkerd.io/debug-image-version", &[], NONE, "there is no debug container"),
    one(
        "config.linkerd.io/default-inbound-policy",
        &["all-unauthenticated"],
        "all-unauthenticated",
        BY_POLICY,
    ),
    one("config.linkerd.io/disable-identity", &["false"], "false", "the sidecar always has an identity"),
    one("config.linkerd.io/disable-tap", &["true"], "true", "there is no tap"),
    one("config.linkerd.io/enable-debug-sidecar", &["false"], "false", "there is no debug container"),
    one("config.linkerd.io/enable-external-profiles", &["false"], "false", "there are no profiles"),
    one("config.linkerd.io/inbound-port", &["4143"], NONE, "15006 holds"),
    one("config.linkerd.io/init-image", &[], NONE, "the injector's setting holds"),
    one("config.linkerd.io/init-image-version", &[], NONE, "the injector's setting holds"),
    one("config.linkerd.io/outbound-port", &["4140"], NONE, "15001 holds"),
    one("config.linkerd.io/pod-inbound-ports", &[], NONE, "all ports are captured"),
    one(
        "config.linkerd.io/proxy-admin-shutdown",
        &["disabled"],
        "disabled",
        "nobody ends the sidecar by HTTP",
    ),
    one("config.linkerd.io/proxy-cpu-ratio-limit", &[], NONE, "proxy-cpu-limit sets the limit"),
    one(
        "config.linkerd.io/proxy-disable-inbound-protocol-detect-timeout",
        &[],
        NONE,
        "no protocol is ever detected",
    ),
    one(
        "config.linkerd.io/proxy-disable-outbound-protocol-detect-timeout",
        &[],
        NONE,
        "no protocol is ever detected",
    ),
    one(
        "config.linkerd.io/proxy-inbound-connect-timeout",
        &[],
        NONE,
        "15 s hold, so that the application's own fires first",
    ),
    one(
        "config.linkerd.io/proxy-outbound-connect-timeout",
        &[],
        NONE,
        "15 s hold, so that the application's own fires first",
    ),
    one(
        "config.linkerd.io/proxy-require-identity-inbound-ports",
        &[""],
        "PeerAuthentication STRICT on these ports",
        BY_POLICY,
    ),
    one("config.linkerd.io/proxy-uid", &["1337"], "1337", "1337 holds"),
    one("config.linkerd.io/proxy-version", &[], NONE, "the injector's setting holds"),
    one("inject.istio.io/templates", &["sidecar"], "sidecar", "there are no templates"),
    one("istio.io/reroute-virtual-interfaces", &[""], NONE, "their traffic counts as inbound"),
    one(
        "linkerd.io/inject",
        &["enabled", "disabled"],
        "enabled",
        "there is no ingress mode, the sidecar is as all others",
    ),
    one(
        "prometheus.istio.io/merge-metrics",
        &["false"],
        "false",
        "the application's metrics stay on its own port",
    ),
    one("proxy.istio.io/overrides", &[], NONE, "the sidecar's container is made by the injector alone"),
    one(
        "readiness.status.sidecar.istio.io/applicationPorts",
        &[""],
        NONE,
        "readiness does not look at the application",
    ),
    one("sidecar.istio.io/agentLogLevel", &[], NONE, ONE_LEVEL),
    one("sidecar.istio.io/bootstrapOverride", &[], NONE, NO_ENVOY),
    one("sidecar.istio.io/componentLogLevel", &[], NONE, ONE_LEVEL),
    one(
        "sidecar.istio.io/controlPlaneAuthPolicy",
        &["MUTUAL_TLS"],
        "MUTUAL_TLS",
        "the control plane is always authenticated",
    ),
    one("sidecar.istio.io/discoveryAddress", &[], NONE, "the injector's setting holds"),
    one("sidecar.istio.io/enableCoreDump", &["false"], "false", "a core would hold private keys"),
    one("sidecar.istio.io/extraStatTags", &[], NONE, "the metrics' labels are fixed"),
    one("sidecar.istio.io/interceptionMode", &["REDIRECT"], "REDIRECT", "REDIRECT holds"),
    one("sidecar.istio.io/statsCompression", &[], NONE, "metrics are not compressed"),
    one("sidecar.istio.io/statsEvictionInterval", &[], NONE, "idle series end by themselves"),
    one("sidecar.istio.io/statsHistogramBuckets", &[], NONE, "there are no histograms to set"),
    one("sidecar.istio.io/statsInclusionPrefixes", &[], NONE, "all metrics are shown"),
    one("sidecar.istio.io/statsInclusionRegexps", &[], NONE, "all metrics are shown"),
    one("sidecar.istio.io/statsInclusionSuffixes", &[], NONE, "all metrics are shown"),
    one("status.sidecar.istio.io/port", &["15021", "15020"], "15021", "15021 holds"),
    one("traffic.sidecar.istio.io/excludeInboundIPRanges", &[], NONE, "all sources are captured"),
    one("traffic.sidecar.istio.io/includeInboundIPRanges", &[], NONE, "all sources are captured"),
    one("traffic.sidecar.istio.io/kubevirtInterfaces", &[""], NONE, "their traffic counts as inbound"),
    one("traffic.sidecar.istio.io/rerouteVirtualInterfaces", &[""], NONE, "their traffic counts as inbound"),
];

/// Says what holds instead of an annotation that was not honoured.
pub(super) fn warn(reader: &mut Reader<'_>, name: &str, value: &str) {
    let warning = match TABLE.iter().find(|known| known.name == name) {
        Some(known) if known.silent.contains(&value) => return,
        Some(known) => Warning::annotation(name, value, known.expected, known.instead),
        None => {
            Warning::annotation(name, value, "an annotation that Ringmail knows", "it means nothing here")
        }
    };
    reader.warnings.push(warning);
}
