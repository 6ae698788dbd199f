use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn the_bearer_token_is_taken_from_the_only_header() {
    assert_eq!(bearer(&headers(&["Bearer abc"])), Ok("abc"));
    assert_eq!(bearer(&headers(&["bearer abc"])), Ok("abc"));
}

#[test]
fn a_header_of_another_shape_is_refused() {
    assert_eq!(bearer(&headers(&[])), Err(AttestError::Missing));
    let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
    for values in [
        vec!["Bearer a", "Bearer b"],
        vec!["Basic abc"],
        vec!["Bearer"],
        vec!["Bearer "],
        vec!["Bearer a b"],
        vec![long.as_str()],
    ] {
        assert_eq!(bearer(&headers(&values)).unwrap_err().reason(), Reason::MalformedToken, "{values:?}");
    }
}

#[test]
fn a_token_has_8192_bytes_at_most() {
    assert_eq!(check_token(&"a".repeat(8_192)), Ok(()));
    let refused = check_token(&"a".repeat(8_193)).unwrap_err();
    assert_eq!(refused, "8193 bytes, expected at most 8192");
}

proptest! {
    #[test]
    fn random_tokens_never_panic_and_prove_nothing(token in "[ -~]{0,200}|[a-zA-Z0-9_-]{0,80}\\.[a-zA-Z0-9_-]{0,80}\\.[a-zA-Z0-9_-]{0,80}") {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain: TrustDomain = "cluster.local".parse().unwrap();
        let (keys, tokens) = (folder.path().join("jwks"), folder.path().join("tokens"));
        std::fs::write(&keys, r#"{"keys":[]}"#).unwrap();
        std::fs::write(&tokens, "[]").unwrap();
        let rules = JwtRules { audience: "ca".to_owned(), issuer: None, trust_domain: trust_domain.clone() };
        let attestors = Attestors::new(
            Some(Box::new(JwtAttestor::open(keys, rules).unwrap())),
            Some(Box::new(StaticTokens::open(tokens, trust_domain).unwrap())),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let headers = headers(&[&format!("Bearer {token}")]);
        prop_assert!(runtime.block_on(attestors.attest(&headers)).is_err());
    }
}
