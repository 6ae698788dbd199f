//! What must hold for any settings: who is captured, who never is, and that removal leaves nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod kernel;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::{Fate, Kernel, Packet};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use ringmail_init::config::{
    Action, BackendChoice, CLOSED_PORT, Cidrs, IpFamilies, Mode, Ports, SIDECAR_PORTS, Settings,
};
use ringmail_init::readback::Installed;
use ringmail_init::render;
use ringmail_init::rules::{Family, RuleSet};

// Few values, so that what is included, excluded and sent often meet.
const PORTS: [u16; 8] = [80, 443, 4191, 15001, 15006, 15020, 15021, 47500];
const NETWORKS: [&str; 7] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8", "fd00:1::7/128"];
const ADDRESSES: [&str; 6] = ["10.1.2.3", "10.1.9.9", "192.0.2.1", "fd00:1::7", "fd12::1", "2001:db8::1"];
const USERS: [u32; 4] = [0, 1000, 1337, 2102];
const INTERFACES: [&str; 4] = ["lo", "eth0", "net1", "tun0"];

fn ports() -> impl Strategy<Value = BTreeSet<u16>> {
    subsequence(PORTS.to_vec(), 0..=PORTS.len()).prop_map(|ports| ports.into_iter().collect())
}

fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    subsequence(NETWORKS.to_vec(), 0..=NETWORKS.len())
        .prop_map(|networks| networks.iter().map(|network| network.parse().unwrap()).collect())
}

prop_compose! {
    fn settings()(
        inbound in prop_oneof![Just(Ports::All), ports().prop_map(Ports::Only)],
        outbound in prop_oneof![Just(Ports::All), ports().prop_map(Ports::Only)],
        cidrs in prop_oneof![Just(Cidrs::All), networks().prop_map(Cidrs::Only)],
        (inbound_exclude, outbound_exclude, exclude_cidrs) in (ports(), ports(), networks()),
        (outbound_add_ports, inbound_exclude_cidrs) in (ports(), networks()),
        uids in subsequence(USERS.to_vec(), 0..3),
        interfaces in subsequence(vec!["net1", "tun0"], 0..=2),
        (proxy_uid, proxy_gid) in (select(vec![1337, 2102]), select(vec![1337, 2102])),
        (tproxy, invalid_drop, closed_port_guard) in any::<(bool, bool, bool)>(),
        ring_ports in ports(),
    ) -> Settings {
        Settings {
            inbound_include_ports: inbound,
            inbound_exclude_ports: inbound_exclude,
            inbound_exclude_cidrs,
            outbound_add_ports,
            outbound_include_ports: outbound,
            outbound_exclude_ports: outbound_exclude,
            outbound_include_cidrs: cidrs,
            outbound_exclude_cidrs: exclude_cidrs,
            exclude_uids: uids.into_iter().collect(),
            exclude_interfaces: interfaces.into_iter().map(str::to_owned).collect(),
            proxy_uid,
            proxy_gid,
            inbound_port: 15006,
            outbound_port: 15001,
            mode: if tproxy { Mode::Tproxy } else { Mode::Redirect },
            ip_families: IpFamilies::Auto,
            backend: BackendChoice::Auto,
            invalid_drop,
            closed_port_guard,
            ring_ports,
            ring_ports_required: false,
            dry_run: false,
            action: Action::Apply { verify: true },
        }
    }
}

fn pairs_of_one_family() -> Vec<(&'static str, &'static str)> {
    let pairs = ADDRESSES.into_iter().flat_map(|one| ADDRESSES.into_iter().map(move |other| (one, other)));
    pairs.filter(|(one, other)| one.contains(':') == other.contains(':')).collect()
}

prop_compose! {
    fn inbound_packet()(
        interface in select(INTERFACES.to_vec()),
        (source, destination) in select(pairs_of_one_family()),
        destination_port in select(PORTS.to_vec()),
        source_port in 32768u16..,
        state in select(vec!["NEW", "INVALID", "ESTABLISHED"]),
    ) -> Packet {
        Packet {
            in_interface: Some(interface.to_owned()), out_interface: None, owner: None, is_refusal: false,
            source: source.parse().unwrap(), destination: destination.parse().unwrap(),
            destination_port, source_port, state,
            protocol: "tcp", noted_in: None,
        }
    }
}

prop_compose! {
    fn outbound_packet()(
        interface in select(INTERFACES.to_vec()),
        destination in select(ADDRESSES.to_vec()),
        destination_port in prop_oneof![9 => select(PORTS.to_vec()), 1 => Just(CLOSED_PORT)],
        source_port in prop_oneof![select(PORTS.to_vec()), 32768u16..],
        owner in proptest::option::of((select(USERS.to_vec()), select(USERS.to_vec()))),
        is_refusal in any::<bool>(),
        noted_in in proptest::option::of(select(vec!["RINGMAIL_47500", "RINGMAIL_V6_47500", "RINGMAIL_443"])),
    ) -> Packet {
        Packet {
            protocol: "tcp", noted_in: noted_in.map(str::to_owned),
            in_interface: None, out_interface: Some(interface.to_owned()), owner, is_refusal, state: "NEW",
            source: "10.1.2.3".parse().unwrap(), destination: destination.parse().unwrap(), destination_port, source_port,
        }
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn kernel(settings: &Settings, family: Family) -> Kernel {
    let mut kernel = Kernel::with_rules_of_others();
    kernel.restore(&render::apply(&RuleSet::new(settings, family), &Installed::default()));
    kernel
}

fn expected_inbound(settings: &Settings, packet: &Packet) -> Fate {
    let interface = packet.in_interface.as_deref().unwrap();
    let port = packet.destination_port;
    if packet.state == "INVALID" && settings.invalid_drop {
        Fate::Dropped
    } else if packet.state != "NEW"
        || interface == "lo"
        || settings.exclude_interfaces.contains(interface)
        || SIDECAR_PORTS.contains(&port)
        || [15001, 15006].contains(&port)
        || settings.inbound_exclude_ports.contains(&port)
        || !settings.inbound_include_ports.contains(port)
        || settings.inbound_exclude_cidrs.iter().any(|network| network.contains(&packet.source))
    {
        Fate::Untouched
    } else {
        Fate::Captured(15006)
    }
}

fn expected_outbound(settings: &Settings, packet: &Packet) -> Fate {
    let interface = packet.out_interface.as_deref().unwrap();
    let port = packet.destination_port;
    let is_exempt = packet.owner.is_some_and(|(uid, gid)| {
        uid == settings.proxy_uid || gid == settings.proxy_gid || settings.exclude_uids.contains(&uid)
    });
    let is_included = settings.outbound_include_ports.contains(port)
        && settings.outbound_include_cidrs.contains(packet.destination);
    if is_exempt
        || interface == "lo"
        || settings.exclude_interfaces.contains(interface)
        || settings.outbound_exclude_ports.contains(&port)
        || settings.outbound_exclude_cidrs.iter().any(|network| network.contains(&packet.destination))
        || !(is_included || settings.outbound_add_ports.contains(&port))
    {
        Fate::Untouched
    } else if settings.ring_ports.contains(&port) && is_noted(packet) {
        Fate::Captured(CLOSED_PORT)
    } else {
        Fate::Captured(15001)
    }
}

/// Whether the packet's own list, of its port and family, holds its destination.
fn is_noted(packet: &Packet) -> bool {
    let list = match family_of(packet.destination) {
        Family::V4 => format!("RINGMAIL_{}", packet.destination_port),
        Family::V6 => format!("RINGMAIL_V6_{}", packet.destination_port),
    };
    packet.noted_in == Some(list)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn inbound_is_captured_exactly_as_the_settings_say(settings in settings(), packet in inbound_packet()) {
        let kernel = kernel(&settings, family_of(packet.destination));
        let fate = match kernel.walk("mangle", "PREROUTING", &packet) {
            // The nat table is asked for first packets only.
            Fate::Untouched if packet.state == "NEW" => kernel.walk("nat", "PREROUTING", &packet),
            fate @ (Fate::Untouched | Fate::Captured(_) | Fate::Dropped) => fate,
        };
        prop_assert_eq!(fate, expected_inbound(&settings, &packet));
    }

    #[test]
    fn outbound_is_captured_exactly_as_the_settings_say(settings in settings(), packet in outbound_packet()) {
        let kernel = kernel(&settings, family_of(packet.destination));
        prop_assert_eq!(kernel.walk("nat", "OUTPUT", &packet), expected_outbound(&settings, &packet));
    }

    #[test]
    fn the_guard_drops_refusals_of_the_proxys_ports_what_the_proxy_sends_itself_and_nothing_else(
        settings in settings(), packet in outbound_packet()
    ) {
        let is_refusal = packet.is_refusal && [15001, 15006].contains(&packet.source_port);
        let is_proxys = packet.owner.is_some_and(|(uid, _)| uid == settings.proxy_uid);
        let is_own_dial = is_proxys && packet.destination_port == 15001;
        let is_dropped = settings.closed_port_guard && (is_refusal && !is_proxys || is_own_dial);
        let expected = if is_dropped { Fate::Dropped } else { Fate::Untouched };
        let fate = kernel(&settings, family_of(packet.destination)).walk("filter", "OUTPUT", &packet);
        prop_assert_eq!(fate, expected);
    }

    #[test]
    fn datagrams_of_the_proxy_to_ring_ports_and_the_closed_one_stay_and_all_others_leave(
        settings in settings(), packet in outbound_packet()
    ) {
        let packet = Packet { protocol: "udp", ..packet };
        let is_proxys = packet.owner.is_some_and(|(uid, _)| uid == settings.proxy_uid);
        let is_told = settings.ring_ports.contains(&packet.destination_port)
            || packet.destination_port == CLOSED_PORT && !settings.ring_ports.is_empty();
        let expected = if is_proxys && is_told {
            Fate::Dropped
        } else {
            Fate::Untouched
        };
        let kernel = kernel(&settings, family_of(packet.destination));
        prop_assert_eq!(kernel.walk("filter", "OUTPUT", &packet), expected);
        prop_assert_eq!(kernel.walk("nat", "OUTPUT", &packet), Fate::Untouched);
    }

    #[test]
    fn what_was_there_before_makes_no_difference(before in settings(), after in settings()) {
        for family in [Family::V4, Family::V6] {
            let wanted = RuleSet::new(&after, family);
            let mut changed = kernel(&before, family);
            let text = render::apply(&wanted, &Installed::parse(&changed.save()));
            changed.restore(&text);
            prop_assert_eq!(&changed, &kernel(&after, family));
            prop_assert_eq!(Installed::parse(&changed.save()).difference(&wanted), None);
        }
    }

    #[test]
    fn removal_leaves_nothing_of_ours_and_everything_of_others(settings in settings()) {
        for family in [Family::V4, Family::V6] {
            let rules = RuleSet::new(&settings, family);
            for installed in [Installed::expected(&rules), Installed::parse(&kernel(&settings, family).save())] {
                let mut kernel = kernel(&settings, family);
                kernel.restore(&render::remove(&installed));
                prop_assert_eq!(&kernel, &Kernel::with_rules_of_others());
            }
        }
    }

    #[test]
    fn a_rule_that_was_taken_out_by_hand_is_noticed(settings in settings(), place in any::<prop::sample::Index>()) {
        let rules = RuleSet::new(&settings, Family::V4);
        let saved = kernel(&settings, Family::V4).save();
        let ours: Vec<usize> = saved.lines().enumerate()
            .filter(|(_, line)| line.starts_with("-A") && line.contains("RINGMAIL_")).map(|(row, _)| row).collect();
        let gone = ours[place.index(ours.len())];
        let rest: Vec<&str> = saved.lines().enumerate().filter(|(row, _)| *row != gone).map(|(_, line)| line).collect();
        let difference = Installed::parse(&rest.join("\n")).difference(&rules);
        prop_assert!(difference.is_some(), "{} was not missed", saved.lines().nth(gone).unwrap());
    }
}
