//! Which PeerAuthentication holds. The one of the mesh's namespace holds for everybody's pods.

use std::{thread::sleep, time::Duration};

use ringmail_tests::kube::{Place, Toolbox, metrics, place::peer_authentication, stage, toolbox::dial};

/// How long a policy may take from `kubectl apply` to every sidecar.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

const THIN: u16 = 10800;
const COMMUNICATION: u16 = 47100;

/// A PeerAuthentication of a row: its namespace, its name, and its spec.
type Layer = (&'static str, &'static str, &'static str);

/// Whether a stranger in plaintext is served on 10800, and on 47100.
type Served = (bool, bool);

const MESH: &str = "istio-system";
const HERE: &str = "precedence";
const STRICT: &str = "mtls: {mode: STRICT}";
const PERMISSIVE: &str = "mtls: {mode: PERMISSIVE}";
const SERVER: &str = "selector: {matchLabels: {app: server}}";

#[test]
#[ignore = "needs a cluster"]
fn the_precedence_of_peer_authentications_holds_on_the_cluster_within_two_seconds() {
    let workload = |rest: &str| -> &'static str { format!("{SERVER}, {rest}").leak() };
    let thin = |mode: &str| format!("portLevelMtls: {{10800: {{mode: {mode}}}}}");
    let strict_but_thin = workload(&format!("{STRICT}, {}", thin("PERMISSIVE")));
    let strict_but_thin_in_the_clear = workload(&format!("{STRICT}, {}", thin("DISABLE")));
    let unset_but_thin = workload(&thin("PERMISSIVE"));
    let rows: &[(&str, &[Layer], Served)] = &[
        ("nobody has said anything", &[], (true, true)),
        ("the mesh is strict", &[(MESH, "default", STRICT)], (false, false)),
        (
            "a namespace overrides the mesh",
            &[(MESH, "default", STRICT), (HERE, "default", PERMISSIVE)],
            (true, true),
        ),
        (
            "UNSET inherits",
            &[(MESH, "default", STRICT), (HERE, "default", "mtls: {mode: UNSET}")],
            (false, false),
        ),
        ("an empty policy inherits", &[(MESH, "default", STRICT), (HERE, "default", "")], (false, false)),
        (
            "a workload overrides its namespace",
            &[(HERE, "default", STRICT), (HERE, "server", workload(PERMISSIVE))],
            (true, true),
        ),
        (
            "a workload may be stricter than its namespace",
            &[(HERE, "default", PERMISSIVE), (HERE, "server", workload(STRICT))],
            (false, false),
        ),
        ("a port overrides its workload", &[(HERE, "server", strict_but_thin)], (true, false)),
        ("a port in the clear", &[(HERE, "server", strict_but_thin_in_the_clear)], (true, false)),
        (
            "a port overrides, and the rest inherits",
            &[(HERE, "default", STRICT), (HERE, "server", unset_but_thin)],
            (true, false),
        ),
        (
            "the oldest of two for a workload holds",
            &[(HERE, "older", workload(STRICT)), (HERE, "a-newer", workload(PERMISSIVE))],
            (false, false),
        ),
        (
            "a policy of other pods",
            &[(HERE, "other", "selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}")],
            (true, true),
        ),
    ];
    let stage = stage();
    let place = Place::in_mesh(stage, HERE).unwrap();
    let strangers = Place::new(stage, "precedence-strangers").unwrap();
    let _mesh = Place::new(stage, MESH).unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::idle("stranger").begin(&strangers).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap();
    strangers.ready("stranger").unwrap();
    let server = place.address("server").unwrap();

    for (what, layers, (thin, communication)) in rows {
        for (namespace, name, spec) in *layers {
            stage.apply(&peer_authentication(namespace, name, spec)).unwrap();
            if layers.iter().filter(|layer| layer.2.contains("selector")).count() > 1 {
                // Ages are whole seconds.
                sleep(Duration::from_millis(1_100));
            }
        }
        sleep(APPLIED_WITHIN);
        for (port, served) in [(THIN, thin), (COMMUNICATION, communication)] {
            let expected = served.then_some("server");
            let heard = dial(&strangers, "stranger", &server, port).unwrap();
            assert_eq!(heard.as_deref(), expected, "{what}: a stranger on {port}");
            let heard = dial(&place, "member", &server, port).unwrap();
            assert_eq!(heard.as_deref(), Some("server"), "{what}: a member on {port}");
        }
        for (namespace, name, _) in *layers {
            stage.kubectl(&["delete", "peerauthentication", "-n", namespace, name]).unwrap();
        }
    }
    // The one row that took the member out of TLS is the one that says DISABLE.
    assert_eq!(metrics::in_plaintext(&place, "member", "outbound").unwrap(), 1);
}
