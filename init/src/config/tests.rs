use super::*;

fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
    let arguments = ["ringmail-init"].iter().chain(arguments).map(OsString::from);
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    match parse(arguments, environment) {
        Ok(Parsed::Settings(settings)) => Ok(*settings),
        Ok(Parsed::Help(text)) => panic!("help was not asked for: {text}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn without_flags_everything_but_the_sidecar_itself_is_captured() {
    let settings = read(&[], &[]).unwrap();
    assert_eq!(settings.inbound_include_ports, Ports::All);
    assert_eq!(settings.outbound_include_cidrs, Cidrs::All);
    assert_eq!((settings.outbound_port, settings.inbound_port), (15001, 15006));
    assert_eq!(settings.exempt_uids(), BTreeSet::from([1337]));
    assert_eq!(settings.inbound_untouched_ports(), BTreeSet::from([4191, 15000, 15001, 15006, 15020, 15021]));
    assert!(settings.invalid_drop && settings.closed_port_guard);
    assert_eq!(settings.action, Action::Apply { verify: true });
}

#[test]
fn the_environment_sets_a_flag_and_the_command_line_wins_over_it() {
    let environment = [
        ("RINGMAIL_INIT_CLOSED_PORT_GUARD", "false"),
        ("RINGMAIL_INIT_PROXY_UID", "2000"),
        ("RINGMAIL_INIT_PORT", "tcp://10.0.0.1:80"),
        ("PROXY_GID", "7"),
    ];
    let settings = read(&["--proxy-uid", "3000"], &environment).unwrap();
    assert!(!settings.closed_port_guard);
    assert_eq!((settings.proxy_uid, settings.proxy_gid), (3000, 1337));
}

#[test]
fn an_empty_include_captures_nothing_and_lists_tolerate_spaces() {
    let settings =
        read(&["--inbound-include-ports=", "--outbound-exclude-cidrs=10.0.0.0/8, fd00::/8,192.0.2.7"], &[])
            .unwrap();
    assert_eq!(settings.inbound_include_ports, Ports::Only(BTreeSet::new()));
    let networks: Vec<String> = settings.outbound_exclude_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"]);
}

#[test]
fn an_empty_list_of_users_or_interfaces_is_none() {
    let settings = read(&["--exclude-interfaces="], &[("RINGMAIL_INIT_EXCLUDE_UIDS", "")]).unwrap();
    assert!(settings.exclude_uids.is_empty() && settings.exclude_interfaces.is_empty());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["--inbound-include-ports=80,,81"], "\"\" is not a port"),
        (&["--inbound-include-ports=0"], "\"0\" is not a port, expected 1 to 65535"),
        (&["--outbound-exclude-ports=65536"], "\"65536\" is not a port"),
        (&["--outbound-include-cidrs=10.0.0.5/8"], "expected 10.0.0.0/8"),
        (&["--outbound-include-cidrs=ten"], "\"ten\" is not a CIDR"),
        (&["--inbound-port=15001"], "--inbound-port and --outbound-port are both 15001"),
        (&["--inbound-port=0"], "must not be 0"),
        (&["--outbound-port=15020"], "port 15020 already belongs to the sidecar"),
        (&["--inbound-include-ports=15021,80"], "--inbound-include-ports names 15021"),
        (&["--inbound-exclude-ports=*"], "--inbound-exclude-ports=*: expected a list"),
        (&["--ring-ports=*"], "--ring-ports=*: expected a list"),
        (&["--ring-ports=47500,15002"], "--ring-ports names 15002"),
        (&["--outbound-port=15002"], "port 15002 must stay closed for --ring-ports"),
        (&["--outbound-exclude-cidrs=*"], "--outbound-exclude-cidrs=*: expected a list"),
        (&["--exclude-interfaces=eth+"], "\"eth+\" is not an interface name"),
        (&["--exclude-interfaces=a b"], "\"a b\" is not an interface name"),
        (&["--exclude-interfaces=sixteencharacter"], "1 to 15"),
        (&["--exclude-uids=root"], "\"root\" is not a uid"),
        (&["--mode=bpf"], "--mode"),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (arguments, expected) in cases {
        let error = read(arguments, &[]).expect_err(&format!("{arguments:?} must be refused"));
        assert!(error.contains(expected), "{arguments:?}: {expected:?} is not in {error:?}");
    }
}

#[test]
fn ports_whose_refusals_are_remembered_are_required_only_when_somebody_names_them() {
    let by_default = read(&[], &[]).unwrap();
    assert_eq!((by_default.ring_ports, by_default.ring_ports_required), ([47500].into(), false));
    for (arguments, environment) in
        [(&["--ring-ports=47500"][..], &[][..]), (&[][..], &[("RINGMAIL_INIT_RING_PORTS", "47500")][..])]
    {
        let asked = read(arguments, environment).unwrap();
        assert_eq!((asked.ring_ports, asked.ring_ports_required), ([47500].into(), true));
    }
    assert!(read(&["--ring-ports="], &[]).unwrap().ring_ports.is_empty());
    // With nothing to remember, no port has to stay closed.
    assert_eq!(read(&["--ring-ports=", "--outbound-port=15002"], &[]).unwrap().outbound_port, 15002);
}

#[test]
fn all_faults_are_told_at_once() {
    let error = read(&["--inbound-port=15001", "--outbound-exclude-ports=*"], &[]).unwrap_err();
    assert!(error.contains("both 15001") && error.contains("--outbound-exclude-ports=*"), "{error}");
}

#[test]
fn help_and_version_are_not_errors() {
    for flag in ["--help", "-h", "--version"] {
        let parsed = parse(["ringmail-init".into(), OsString::from(flag)], []);
        assert!(matches!(&parsed, Ok(Parsed::Help(text)) if text.contains("ringmail-init")), "{parsed:?}");
    }
}
