//! The grammar of SPIFFE IDs against a second, slow reading of the standard.

use proptest::{collection::vec, prelude::*, sample::select};
use ringmail_identity::{IdFault, SpiffeId, TrustDomain};

const DOMAIN_CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
const PATH_CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

/// The standard, read naively: split at slashes and look at every character.
fn is_workload_id(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let [scheme, nothing, domain, segments @ ..] = parts.as_slice() else { return false };
    text.len() <= 2048
        && *scheme == "spiffe:"
        && nothing.is_empty()
        && is_trust_domain(domain)
        && !segments.is_empty()
        && segments.iter().all(|segment| is_segment(segment))
}

fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.chars().all(|c| DOMAIN_CHARACTERS.contains(c))
}

fn is_segment(text: &str) -> bool {
    !["", ".", ".."].contains(&text) && text.chars().all(|c| PATH_CHARACTERS.contains(c))
}

fn segment() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,12}".prop_filter("dots", |text| is_segment(text))
}

fn workload_id() -> impl Strategy<Value = String> {
    ("[a-z0-9._-]{1,20}", vec(segment(), 1..6))
        .prop_map(|(domain, segments)| format!("spiffe://{domain}/{}", segments.join("/")))
}

/// Pieces that IDs are made of, good and bad, in any order.
fn rubble() -> impl Strategy<Value = String> {
    let pieces = [
        "spiffe://",
        "spiffe:",
        "SPIFFE://",
        "/",
        "//",
        ".",
        "..",
        "a",
        "Z",
        "9",
        "-",
        "_",
        "%2e",
        "%",
        "*",
        ":",
        "@",
        "?",
        "#",
        "\0",
        "\n",
        " ",
        "\\",
        "é",
        "\u{ff0e}",
        "ns",
        "sa",
        "cluster.local",
    ];
    vec(select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat())
}

/// A good ID with one character replaced, put in or taken out.
fn nearly() -> impl Strategy<Value = String> {
    (
        workload_id(),
        any::<prop::sample::Index>(),
        select(vec!["", "/", ".", "..", "A", "%", "é", ":", "\0"]),
        any::<bool>(),
    )
        .prop_map(|(id, at, piece, replace)| {
            let at = at.index(id.len());
            let rest = if replace { &id[at + 1..] } else { &id[at..] };
            format!("{}{piece}{rest}", &id[..at])
        })
}

/// Paths of a few segments that mean something to somebody.
fn loaded() -> impl Strategy<Value = String> {
    let segments = ["ns", "sa", "ring", "ignite", "a.b", "", ".", "..", "...", "*", "%2e"];
    vec(select(segments.to_vec()), 0..6)
        .prop_map(|segments| format!("spiffe://cluster.local/{}", segments.join("/")))
}

/// Lengths around both limits.
fn long() -> impl Strategy<Value = String> {
    (250usize..260, 1780usize..1800)
        .prop_map(|(domain, path)| format!("spiffe://{}/{}", "d".repeat(domain), "p".repeat(path)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_parser_accepts_exactly_what_the_standard_accepts(
        text in prop_oneof![workload_id(), rubble(), nearly(), loaded(), long(), any::<String>()]
    ) {
        prop_assert_eq!(text.parse::<SpiffeId>().is_ok(), is_workload_id(&text), "{:?}", text);
        prop_assert_eq!(text.parse::<TrustDomain>().is_ok(), is_trust_domain(&text), "{:?}", text);
    }

    #[test]
    fn an_id_is_its_text_and_its_parts(text in workload_id()) {
        let id: SpiffeId = text.parse().unwrap();
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(id.to_string(), text.clone());
        prop_assert_eq!(format!("spiffe://{}", id.principal()), text.clone());
        prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    }

    #[test]
    fn ids_are_equal_and_ordered_as_their_bytes_are(one in workload_id(), two in workload_id()) {
        let (a, b): (SpiffeId, SpiffeId) = (one.parse().unwrap(), two.parse().unwrap());
        prop_assert_eq!(a == b, one == two);
        prop_assert_eq!(a.cmp(&b), one.cmp(&two));
    }

    #[test]
    fn no_text_with_a_forbidden_byte_is_an_id(
        id in workload_id(),
        at in any::<prop::sample::Index>(),
        bad in any::<char>().prop_filter("allowed", |c| !PATH_CHARACTERS.contains(*c) && *c != '/'),
    ) {
        let mut text = id;
        text.insert(at.index(text.len() + 1), bad);
        prop_assert!(text.parse::<SpiffeId>().is_err(), "{:?}", text);
    }

    #[test]
    fn a_service_accounts_id_holds_its_parts(domain in "[a-z0-9._-]{1,20}", namespace in segment(), account in segment()) {
        let domain: TrustDomain = domain.parse().unwrap();
        let id = SpiffeId::for_service_account(&domain, &namespace, &account).unwrap();
        prop_assert_eq!(id.trust_domain(), domain.as_str());
        prop_assert_eq!(id.namespace(), Some(namespace.as_str()));
        prop_assert_eq!(id.service_account(), Some(account.as_str()));
        prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
    }

    #[test]
    fn namespace_and_account_are_read_from_exactly_one_form_of_path(
        middle in select(vec!["sa", "SA", "sb", "s"]), rest in vec(segment(), 0..3), namespace in segment()
    ) {
        let rest: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        let id: SpiffeId = format!("spiffe://cluster.local/ns/{namespace}/{middle}{rest}").parse().unwrap();
        let parts: Vec<&str> = id.path().split('/').collect();
        let expected = match parts.as_slice() {
            ["", "ns", namespace, "sa", account] => Some((*namespace, *account)),
            _ => None,
        };
        prop_assert_eq!(id.namespace().zip(id.service_account()), expected);
    }

    #[test]
    fn no_part_of_a_service_account_slips_out_of_its_segment(
        part in prop_oneof![any::<String>(), "[a-z./%]{0,6}"]
    ) {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let as_namespace = SpiffeId::for_service_account(&domain, &part, "ignite");
        let as_account = SpiffeId::for_service_account(&domain, "ring", &part);
        prop_assert_eq!(as_namespace.is_ok(), is_segment(&part));
        prop_assert_eq!(as_account.is_ok(), is_segment(&part));
    }
}

#[test]
fn paths_that_only_resemble_a_service_account_have_no_namespace() {
    for path in
        ["/ns/ring", "/ns/ring/sa", "/ns/ring/sa/a/b", "/x/ns/ring/sa/a", "/ns/ring/SA/a", "/ns/a/b/sa/c"]
    {
        let id: SpiffeId = format!("spiffe://cluster.local{path}").parse().unwrap();
        assert_eq!((id.namespace(), id.service_account()), (None, None), "{path}");
    }
}

#[test]
fn an_error_quotes_what_was_read_and_says_where_it_went_wrong() {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    let errors = [
        (
            "spiffe://td/a%2eb".parse::<SpiffeId>().unwrap_err(),
            r#"spiffe id "spiffe://td/a%2eb": `%` at byte 13: percent-encoding is not allowed"#,
        ),
        (
            "spiffe://td/a\nb".parse::<SpiffeId>().unwrap_err(),
            r#"spiffe id "spiffe://td/a\nb": control character 0x0a at byte 13"#,
        ),
        (
            "td:80".parse::<TrustDomain>().unwrap_err(),
            r#"trust domain "td:80": the trust domain carries a port"#,
        ),
        (
            SpiffeId::for_service_account(&domain, "a/b", "c").unwrap_err(),
            r#"namespace "a/b": character '/' at byte 1 is outside the grammar"#,
        ),
    ];
    for (error, text) in errors {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn the_longest_id_and_trust_domain_are_inside_the_limits() {
    let longest = format!("spiffe://td/{}", "a".repeat(2048 - "spiffe://td/".len()));
    assert!(longest.parse::<SpiffeId>().is_ok());
    assert_eq!(
        format!("{longest}a").parse::<SpiffeId>().unwrap_err().fault(),
        IdFault::TooLong { len: 2049 }
    );
    assert!("d".repeat(255).parse::<TrustDomain>().is_ok());
    let fault = "d".repeat(256).parse::<TrustDomain>().unwrap_err().fault();
    assert_eq!(fault, IdFault::TrustDomainTooLong { len: 256 });
}
