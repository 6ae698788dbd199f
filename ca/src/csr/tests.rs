use super::*;
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SignatureAlgorithm,
};

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn ec_key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

#[test]
fn the_key_of_a_sound_request_is_taken() {
    let cases = [
        (ec_key(&PKCS_ECDSA_P256_SHA256), KeyAlgorithm::EcP256),
        (ec_key(&PKCS_ECDSA_P384_SHA384), KeyAlgorithm::EcP384),
        (
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            KeyAlgorithm::Rsa { bits: 2048 },
        ),
    ];
    for (key, algorithm) in cases {
        let taken = requested_key(&csr(&key)).unwrap();
        assert_eq!(taken.algorithm, algorithm);
        assert_eq!(taken.spki.der_bytes(), key.public_key_raw());
    }
}

#[test]
fn a_key_that_is_not_certified_is_refused_by_its_name() {
    for (algorithm, name) in [(&PKCS_ECDSA_P521_SHA512, "1.3.132.0.35"), (&PKCS_ED25519, "1.3.101.112")] {
        let error = requested_key(&csr(&ec_key(algorithm))).unwrap_err();
        assert_eq!(error.reason(), Reason::CsrKey);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let mut der = pem::parse(csr(&ec_key(&PKCS_ECDSA_P256_SHA256))).unwrap().into_contents();
    let other = pem::parse(csr(&ec_key(&PKCS_ECDSA_P256_SHA256))).unwrap().into_contents();
    // The public point is the only 65-byte bit string of the request: give it another owner.
    let at = |der: &[u8]| der.windows(4).position(|w| w == [0x03, 0x42, 0x00, 0x04]).unwrap() + 3;
    let (here, there) = (at(&der), at(&other));
    der[here..here + 65].copy_from_slice(&other[there..there + 65]);
    let error = requested_key(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))).unwrap_err();
    assert_eq!(error.reason(), Reason::CsrSignature);
}

#[test]
fn a_request_has_16384_bytes_at_most() {
    let sound = csr(&ec_key(&PKCS_ECDSA_P256_SHA256));
    let filled = |bytes: usize| format!("{sound}{}", "\n".repeat(bytes - sound.len()));
    assert!(requested_key(&filled(16_384)).is_ok());
    let refused = requested_key(&filled(16_385)).unwrap_err();
    assert_eq!(refused.reason(), Reason::CsrTooLarge);
    assert_eq!(refused.to_string(), "request of 16385 bytes: expected at most 16384");
}

#[test]
fn what_is_no_request_is_refused() {
    let sound = csr(&ec_key(&PKCS_ECDSA_P256_SHA256));
    let contents = pem::parse(&sound).unwrap().into_contents();
    let with_tail = [contents.as_slice(), b"tail"].concat();
    let block = |label: &str, der: &[u8]| pem::encode(&pem::Pem::new(label, der));
    let cases = [
        (String::new(), Reason::CsrMalformed),
        ("hello".to_owned(), Reason::CsrMalformed),
        (block("CERTIFICATE", &contents), Reason::CsrMalformed),
        (block("CERTIFICATE REQUEST", &contents[..contents.len() / 2]), Reason::CsrMalformed),
        (block("CERTIFICATE REQUEST", &with_tail), Reason::CsrMalformed),
    ];
    for (text, reason) in cases {
        assert_eq!(requested_key(&text).unwrap_err().reason(), reason, "{text:.60}");
    }
}

#[test]
fn wishes_in_the_request_change_nothing_of_what_is_taken() {
    let key = ec_key(&PKCS_ECDSA_P256_SHA256);
    let mut params = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let wishful = params.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(requested_key(&wishful).unwrap().spki, requested_key(&csr(&key)).unwrap().spki);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = requested_key(&String::from_utf8_lossy(&bytes));
        let _ = requested_key(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bytes)));
    }

    #[test]
    fn a_flipped_bit_is_never_accepted_as_another_key(at in 0usize..10_000, bit in 0u8..8) {
        let key = ec_key(&PKCS_ECDSA_P256_SHA256);
        let mut der = pem::parse(csr(&key)).unwrap().into_contents();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        if let Ok(taken) = requested_key(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))) {
            prop_assert_eq!(taken.spki.der_bytes(), key.public_key_raw());
        }
    }
}
