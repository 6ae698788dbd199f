//! `proxy.istio.io/config`: Istio's settings of one proxy, as YAML in an annotation.

use serde_json::Value;

use super::annotations::Reader;
use super::warning::Warning;

/// The longest text that is parsed: it is a few settings, and YAML is costly to read.
const MAX_BYTES: usize = 16 * 1024;

/// Keys of `proxyMetadata` with the values that hold anyway.
const METADATA: [(&str, &[&str]); 4] = [
    ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", &["true"]),
    ("INVALID_DROP", &["true"]),
    ("ISTIO_META_DNS_CAPTURE", &["false"]),
    ("ISTIO_META_IDLE_TIMEOUT", &["0s", "0"]),
];

pub(super) fn read(reader: &mut Reader<'_>, name: &str, text: &str) {
    let parsed: Option<Value> =
        Some(text).filter(|text| text.len() <= MAX_BYTES).and_then(|text| serde_saphyr::from_str(text).ok());
    let Some(Value::Object(settings)) = parsed else {
        if !parsed.is_some_and(|parsed| parsed.is_null()) {
            reader.warn(Warning::annotation(name, text, "a YAML mapping", "nothing of it holds"));
        }
        return;
    };
    for (key, value) in &settings {
        let place = format!("{name} {key}");
        let text = as_text(value);
        match key.as_str() {
            "holdApplicationUntilProxyStarts" => reader.hold(&place, &text),
            "terminationDrainDuration" => reader.drain(&place, &text),
            "concurrency" => reader.workers(&place, &text),
            "image" => image(reader, &place, value),
            "proxyMetadata" => metadata(reader, &place, value),
            _ => reader.warn(Warning::annotation(
                &place,
                &text,
                "a setting that Ringmail has",
                "it means nothing here",
            )),
        }
    }
}

fn image(reader: &mut Reader<'_>, place: &str, value: &Value) {
    match value.get("imageType").and_then(Value::as_str) {
        Some(kind) => reader.image_type(&format!("{place}.imageType"), kind),
        None => reader.warn(Warning::annotation(
            place,
            &as_text(value),
            "imageType",
            "the injector's setting holds",
        )),
    }
}

fn metadata(reader: &mut Reader<'_>, place: &str, value: &Value) {
    let Some(pairs) = value.as_object() else {
        reader.warn(Warning::annotation(place, &as_text(value), "a mapping", "nothing of it holds"));
        return;
    };
    for (key, value) in pairs {
        let text = as_text(value);
        let holds =
            METADATA.iter().find(|(known, _)| known == key).map(|(_, holds)| *holds).unwrap_or_default();
        if !holds.contains(&text.as_str()) {
            let expected = holds.first().copied().unwrap_or("a setting that Ringmail has");
            let instead = "it means nothing here";
            reader.warn(Warning::annotation(&format!("{place}.{key}"), &text, expected, instead));
        }
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
