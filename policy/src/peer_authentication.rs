//! PeerAuthentication: the modes a namespace, a mesh or a workload is served in.

use std::collections::BTreeMap;

use crate::mode::Mode;
use crate::parse::{Document, Field};
use crate::resource::{Labels, Meta};

/// A parsed policy. `None` as a mode is UNSET: inherited.
#[derive(Clone, Debug)]
pub(crate) struct PeerAuthentication {
    pub(crate) meta: Meta,
    pub(crate) selector: Labels,
    pub(crate) mode: Option<Mode>,
    pub(crate) ports: BTreeMap<u16, Option<Mode>>,
}

const SPEC_FIELDS: &str = "selector, mtls or portLevelMtls";
const MODES: &str = "UNSET, DISABLE, PERMISSIVE or STRICT";

impl PeerAuthentication {
    pub(crate) fn parse(document: &mut Document, meta: Meta, spec: &Field<'_>) -> Self {
        let mut policy = Self { meta, selector: Labels::new(), mode: None, ports: BTreeMap::new() };
        let mut port_field = None;
        for (key, field) in spec.entries(document) {
            match key {
                "selector" => policy.selector = field.selector(document),
                "mtls" => policy.mode = mtls(document, &field),
                "portLevelMtls" => {
                    policy.ports = ports(document, &field);
                    port_field = Some(field);
                }
                _ => document.unknown(&field, SPEC_FIELDS),
            }
        }
        if let Some(field) = port_field
            && policy.selector.is_empty()
            && !policy.ports.is_empty()
        {
            document.fault(&field, "a selector with matchLabels beside it", "none");
        }
        policy
    }
}

fn ports(document: &mut Document, field: &Field<'_>) -> BTreeMap<u16, Option<Mode>> {
    let mut ports = BTreeMap::new();
    for (key, field) in field.entries(document) {
        let Some(port) = document.port(&field, key) else { continue };
        let mode = mtls(document, &field);
        if ports.insert(port, mode).is_some() {
            document.fault(&field, "each port once", format!("port {port} again"));
        }
    }
    ports
}

fn mtls(document: &mut Document, field: &Field<'_>) -> Option<Mode> {
    let mut mode = None;
    for (key, field) in field.entries(document) {
        match key {
            "mode" => match field.text(document) {
                Some("UNSET") | None => {}
                Some("DISABLE") => mode = Some(Mode::Disable),
                Some("PERMISSIVE") => mode = Some(Mode::Permissive),
                Some("STRICT") => mode = Some(Mode::Strict),
                Some(other) => document.fault(&field, MODES, format!("{other:?}")),
            },
            _ => document.unknown(&field, "mode"),
        }
    }
    mode
}
