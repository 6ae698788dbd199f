//! The complaints are those of iptables 1.8 as printed, and of kernels without the feature.

use super::*;

const ALL: Capabilities = Capabilities { net_admin: true, net_raw: true };
const NONE: Capabilities = Capabilities { net_admin: false, net_raw: false };
const TEXT: &str = "\
*filter
:RINGMAIL_GUARD - [0:0]
-A RINGMAIL_GUARD -p tcp -m owner --uid-owner 1337 -j RETURN
COMMIT
*nat
:RINGMAIL_IN_REDIRECT - [0:0]
-A RINGMAIL_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-I PREROUTING 1 -p tcp -j RINGMAIL_INBOUND
COMMIT
";

fn modules(complaint: &str, family: Family, backend: Backend) -> String {
    match diagnose(complaint, TEXT, (family, backend), ALL) {
        Obstacle::Missing(missing) => missing.modules.join(" "),
        other @ (Obstacle::Locked | Obstacle::NotPermitted(_) | Obstacle::Other) => {
            panic!("{complaint:?} was read as {other:?}")
        }
    }
}

#[test]
fn a_missing_module_is_named() {
    use Backend::{Legacy, Nft};
    use Family::{V4, V6};
    for (complaint, family, backend, expected) in [
        (
            "Warning: Extension owner revision 0 not supported, missing kernel module?\n",
            V4,
            Nft,
            "nft_compat xt_owner",
        ),
        (
            "iptables-restore v1.8.9 (legacy): Couldn't load match `owner':No such file or directory",
            V4,
            Legacy,
            "xt_owner",
        ),
        ("iptables-restore: line 4 failed", V4, Legacy, "xt_owner"),
        ("ip6tables-restore: line 9 failed", V6, Legacy, "xt_REDIRECT"),
        (
            "line 7: RULE_APPEND failed (No such file or directory): rule in chain RINGMAIL_IN_REDIRECT",
            V4,
            Nft,
            "nft_compat xt_REDIRECT",
        ),
        (
            "Warning: Extension conntrack revision 3 not supported, missing kernel module?",
            V6,
            Legacy,
            "xt_conntrack",
        ),
        (
            "Warning: Extension recent revision 0 not supported, missing kernel module?",
            V4,
            Nft,
            "nft_compat xt_recent",
        ),
        ("Couldn't load target `TPROXY':No such file or directory", V4, Legacy, "xt_TPROXY"),
        (
            "ip6tables-restore v1.8.9 (legacy): ip6tables-restore: unable to initialize table 'nat'",
            V6,
            Legacy,
            "ip6table_nat",
        ),
        (
            "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'mangle'",
            V4,
            Legacy,
            "iptable_mangle",
        ),
        (
            "iptables-nft-save: Failed to initialize nft: Protocol not supported",
            V4,
            Nft,
            "nf_tables nft_chain_nat",
        ),
        (
            "line 5: CHAIN_ADD failed (No such file or directory): chain PREROUTING",
            V6,
            Nft,
            "nf_tables nft_chain_nat",
        ),
    ] {
        assert_eq!(modules(complaint, family, backend), expected, "{complaint}");
    }
}

#[test]
fn a_refusal_for_want_of_capabilities_says_which() {
    for complaint in [
        "iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
        "iptables-nft-restore: line 4 failed: Permission denied (you must be root).",
        "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'nat'",
        "iptables-save v1.8.9 (legacy): Cannot initialize: Permission denied (you must be root)",
    ] {
        let found = diagnose(complaint, TEXT, (Family::V4, Backend::Legacy), NONE);
        assert_eq!(found, Obstacle::NotPermitted(Some("NET_ADMIN and NET_RAW")), "{complaint}");
        assert!(found.to_string().contains("NET_ADMIN"));
    }
}

#[test]
fn a_lock_that_cannot_be_had_is_not_taken_for_missing_rights() {
    let complaint = "Fatal: can't open lock file /run/xtables.lock: Permission denied";
    assert_eq!(diagnose(complaint, TEXT, (Family::V4, Backend::Legacy), ALL), Obstacle::Locked);
}

#[test]
fn what_no_module_can_mend_is_left_to_the_tools_own_words() {
    for complaint in [
        "line 3: RULE_APPEND failed (Invalid argument): rule in chain RINGMAIL_GUARD",
        "iptables-restore: line 99 failed",
        "iptables-restore: line 1 failed",
        "segmentation fault",
        "",
    ] {
        let found = diagnose(complaint, TEXT, (Family::V4, Backend::Nft), ALL);
        assert_eq!(found, Obstacle::Other, "{complaint}");
    }
}
