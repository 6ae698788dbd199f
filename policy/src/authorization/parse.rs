//! Reading an AuthorizationPolicy, and what becomes of a rule that asks more than this layer knows.

use super::rule::RuleReader;
use super::{Action, AuthorizationPolicy};
use crate::parse::{Document, Field};
use crate::resource::{Labels, Meta};

const DRY_RUN: &str = "istio.io/dry-run";
const SPEC_FIELDS: &str = "selector, targetRef, targetRefs, action, provider or rules";

impl AuthorizationPolicy {
    pub(crate) fn parse(document: &mut Document, meta: Meta, spec: &Field<'_>) -> Self {
        let mut policy = Self {
            dry_run: false,
            meta,
            selector: Labels::new(),
            action: Action::Allow,
            rules: Vec::new(),
            targets_gateway: false,
        };
        let mut rules = None;
        for (key, field) in spec.entries(document) {
            match key {
                "selector" => policy.selector = field.selector(document),
                "targetRef" => policy.targets_gateway |= !field.entries(document).is_empty(),
                "targetRefs" => policy.targets_gateway |= !field.items(document).is_empty(),
                "action" => policy.action = action(document, &field),
                "provider" => _ = field.entries(document),
                "rules" => rules = Some(field),
                _ => document.unknown(&field, SPEC_FIELDS),
            }
        }
        if let Some(rules) = &rules {
            policy.read_rules(document, rules);
        }
        policy.dry_run = policy.read_dry_run(document, spec);
        policy.report_whole(document, spec);
        policy
    }

    fn read_rules(&mut self, document: &mut Document, rules: &Field<'_>) {
        for (index, field) in rules.items(document).iter().enumerate() {
            let (rule, left_out) = RuleReader::new(&self.meta).read(document, index, field);
            if left_out.is_empty() {
                self.rules.push(rule);
                continue;
            }
            let fields = left_out.join(", ");
            let action = self.action;
            let consequence = match action {
                Action::Allow | Action::Audit => {
                    format!("the whole rule is dropped from this {} policy", action.as_str())
                }
                Action::Custom | Action::Deny => {
                    self.rules.push(rule);
                    format!("left out, so this {} rule matches more than it says", action.as_str())
                }
            };
            document.report(
                &self.meta,
                field,
                format!("rule {index}: {fields} cannot be known at this layer: {consequence}"),
            );
        }
    }

    fn read_dry_run(&self, document: &mut Document, spec: &Field<'_>) -> bool {
        let Some(value) = self.meta.annotations.get(DRY_RUN) else { return false };
        match value.as_str() {
            // Denying what a CUSTOM policy matches is already a stand-in; not even that would fail open.
            "1" | "t" | "T" | "true" | "TRUE" | "True" => self.action != Action::Custom,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            other => {
                let text = format!("{DRY_RUN} {other:?} is not a boolean: the policy is enforced");
                document.report(&self.meta, spec, text);
                false
            }
        }
    }

    fn report_whole(&self, document: &mut Document, spec: &Field<'_>) {
        let text = match (self.action, self.dry_run) {
            _ if self.targets_gateway => "not enforced: it targets gateways or waypoints, not sidecars",
            (Action::Audit, _) => "not supported: AUDIT has no effect",
            (_, true) => "not enforced: istio.io/dry-run is set",
            (Action::Custom, false) => {
                "not supported: there is no external authorizer to ask, so what a CUSTOM rule matches is denied"
            }
            (Action::Deny, false) if self.rules.is_empty() => "has no effect: a DENY policy without rules",
            (Action::Allow | Action::Deny, false) => return,
        };
        let action =
            matches!(self.action, Action::Audit | Action::Custom).then(|| spec.get("action")).flatten();
        document.report(&self.meta, action.as_ref().unwrap_or(spec), text);
    }
}

fn action(document: &mut Document, field: &Field<'_>) -> Action {
    match field.text(document) {
        Some("ALLOW") | None => Action::Allow,
        Some("AUDIT") => Action::Audit,
        Some("CUSTOM") => Action::Custom,
        Some("DENY") => Action::Deny,
        Some(other) => {
            document.fault(field, "ALLOW, DENY, AUDIT or CUSTOM", format!("{other:?}"));
            Action::Deny
        }
    }
}
