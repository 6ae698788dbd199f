//! Apply, again, differently, dry, and removed.

use std::net::SocketAddr;
use std::process::Command;

use ringmail_init::backend::Backend;
use socket2::{Domain, Socket, Type};

use crate::lab::{BACKENDS, FAMILIES, Lab, Run, each_case, inside, program};

#[test]
fn rules_are_put_in_place_and_proven_and_a_second_run_changes_nothing() {
    for backend in BACKENDS {
        let lab = Lab::new();
        let first = lab.capture(backend, &[]);
        let saved = FAMILIES.map(|family| lab.saved(backend, family));
        let second = lab.capture(backend, &[]);
        assert_eq!(FAMILIES.map(|family| lab.saved(backend, family)), saved);
        for family in ["ipv4", "ipv6"] {
            assert!(first.contains(&format!("{family}: 28 rules put in place ({backend})")), "{first}");
            assert!(first.contains(&format!("{family}: outbound proven")), "{first}");
            assert_eq!(first.matches(&format!("{family}: guard proven")).count(), 2, "{first}");
            assert!(second.contains(&format!("{family}: all 28 rules are in place already")), "{second}");
        }
        assert!(first.ends_with("inbound to port 15006, outbound to port 15001\n"), "{first}");
    }
}

#[test]
fn the_proof_leaves_the_proxys_ports_free_for_a_strict_bind() {
    let lab = Lab::new();
    lab.capture(Backend::Nft, &[]);
    for (domain, any) in [(Domain::IPV4, "0.0.0.0"), (Domain::IPV6, "::")] {
        for port in [15001, 15006] {
            let address = SocketAddr::new(any.parse().unwrap(), port);
            let bound = inside(&lab.pod, || {
                let socket = Socket::new(domain, Type::STREAM, None)?;
                socket.bind(&address.into())
            });
            assert!(bound.is_ok(), "{address}: {bound:?}");
        }
    }
}

#[test]
fn a_run_with_other_settings_leaves_only_the_new_rules() {
    for backend in BACKENDS {
        let lab = Lab::new();
        lab.capture(
            backend,
            &["--mode=tproxy", "--inbound-include-ports=1,2", "--outbound-include-cidrs=10.0.0.0/8,fd00::/8"],
        );
        let text = lab.capture(backend, &[]);
        assert_eq!(text.matches("were replaced by 28").count(), 2, "{text}");
        let fresh = Lab::new();
        fresh.capture(backend, &[]);
        for family in FAMILIES {
            assert_eq!(lab.saved(backend, family), fresh.saved(backend, family));
        }
    }
}

#[test]
fn rules_of_others_stay_and_ours_go_before_them() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.iptables(backend, family, "-t nat -A OUTPUT -p tcp -j ACCEPT");
        lab.capture(backend, &[]);
        let saved = lab.saved(backend, family);
        let place = |rule: &str| saved.find(rule).unwrap_or_else(|| panic!("{rule} is not in {saved}"));
        assert!(place("-A OUTPUT -p tcp -j RINGMAIL_OUTBOUND") < place("-A OUTPUT -p tcp -j ACCEPT"));
        assert_eq!(lab.init(&["--remove"]).code, Some(0));
        let saved = lab.saved(backend, family);
        assert!(saved.contains("-A OUTPUT -p tcp -j ACCEPT") && !saved.contains("RINGMAIL"), "{saved}");
    }
}

#[test]
fn a_rule_that_was_taken_out_is_put_back() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &[]);
        let saved = lab.saved(backend, family);
        lab.iptables(backend, family, "-t nat -D RINGMAIL_INBOUND -p tcp --dport 15020 -j RETURN");
        let text = lab.capture(backend, &[]);
        assert_eq!(text.matches("were replaced by 28").count(), 1, "{text}");
        assert_eq!(lab.saved(backend, family), saved);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_prints_what_can_be_restored_and_removed() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        let before = BACKENDS.map(|backend| FAMILIES.map(|family| lab.saved(backend, family)));
        let only = format!("--ip-families={}", &family.name().replace("ip", ""));
        let [apply, remove] = [&[][..], &["--remove"]].map(|flags| {
            let run = lab.init(&[&["--dry-run", only.as_str()], flags].concat());
            assert_eq!(run.code, Some(0), "{}", run.text);
            run.text
        });
        assert_eq!(BACKENDS.map(|backend| FAMILIES.map(|family| lab.saved(backend, family))), before);

        restore(&lab, backend, family, &apply);
        let by_hand = lab.saved(backend, family);
        let text = lab.capture(backend, &[only.as_str()]);
        assert!(text.contains("nothing changed"), "{text}");
        assert_eq!(lab.saved(backend, family), by_hand);
        restore(&lab, backend, family, &remove);
        let saved = lab.saved(backend, family);
        assert!(!saved.contains("RINGMAIL") && !saved.contains("-A "), "{saved}");
    }
}

#[test]
fn removal_leaves_nothing_and_a_second_removal_says_so() {
    for backend in BACKENDS {
        let lab = Lab::new();
        lab.capture(backend, &[]);
        assert!(FAMILIES.iter().all(|family| lab.saved(backend, *family).contains("RINGMAIL")));
        let removed = lab.init(&["--remove"]);
        assert!(removed.text.contains(&format!("ipv6: 28 rules removed ({backend})")), "{}", removed.text);
        for family in FAMILIES {
            let saved = lab.saved(backend, family);
            assert!(!saved.contains("RINGMAIL") && !saved.contains("-A "), "{saved}");
        }
        let again = lab.init(&["--remove"]);
        assert_eq!((removed.code, again.code), (Some(0), Some(0)));
        assert_eq!(again.text.matches("nothing to remove").count(), 2, "{}", again.text);
    }
}

#[test]
fn rules_in_the_other_backend_are_noticed() {
    for (holder, other) in [(Backend::Nft, Backend::Legacy), (Backend::Legacy, Backend::Nft)] {
        let lab = Lab::new();
        lab.capture(holder, &[]);
        let refused = lab.init(&[&format!("--backend={other}")]);
        assert_eq!(refused.code, Some(73), "{}", refused.text);
        let expected = format!("{other} was asked for, but {holder} already holds ipv4 rules");
        assert!(refused.text.contains(&expected) && refused.text.contains("--remove"), "{}", refused.text);
        let kept = lab.init(&[]);
        assert_eq!((kept.code, kept.text.matches("nothing changed").count()), (Some(0), 2), "{}", kept.text);
        assert!(kept.text.contains(&format!("({holder})")), "{}", kept.text);
    }
}

#[test]
fn rules_in_both_backends_are_refused_until_removal_has_cleared_both() {
    let lab = Lab::new();
    lab.capture(Backend::Nft, &[]);
    let text = lab.init(&["--dry-run", "--ip-families=v4"]).text;
    restore(&lab, Backend::Legacy, FAMILIES[0], &text);
    let refused = lab.init(&[]);
    assert_eq!(refused.code, Some(73), "{}", refused.text);
    assert!(refused.text.contains("both nft and legacy hold ipv4 rules"), "{}", refused.text);
    assert_eq!(lab.init(&["--remove"]).code, Some(0));
    for (backend, family) in each_case() {
        assert!(!lab.saved(backend, family).contains("RINGMAIL"));
    }
    assert_eq!(lab.init(&[]).code, Some(0));
}

fn restore(lab: &Lab, backend: Backend, family: ringmail_init::rules::Family, text: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new(format!("{}-restore", program(backend, family)));
    command.arg("--noflush").arg(file.path());
    let run = inside(&lab.pod, || Run::of(&mut command));
    assert_eq!(run.code, Some(0), "{}", run.text);
}
