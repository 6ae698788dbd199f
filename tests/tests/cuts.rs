//! A far sidecar that dies: what the application sees of it, before the handshake is over and after.

use std::sync::Arc;

use ringmail_tests::{
    adversary::{Ending, ending, session::Session},
    arena::{Arena, VICTIM},
    said,
    streams::OWN_PORT,
    world::SERVICE_ACCOUNT,
};

#[test]
fn a_far_sidecar_that_dies_is_an_end_to_the_application_and_a_reset_on_ports_that_are_set_so() {
    let own_port = format!("[{OWN_PORT}]");
    for (ports, expected) in [("[47500]", Ending::Fin), (own_port.as_str(), Ending::Reset)] {
        let arena = Arena::new(&[("truncation_reset_ports", ports)]).unwrap();
        let listener = arena.ambush().unwrap();

        let application = arena.lure().unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(ending(&application), expected, "in mid-handshake, {ports}");

        let application = arena.lure().unwrap();
        let shown = Arc::new(arena.forger().unwrap().of(SERVICE_ACCOUNT).unwrap());
        drop(Session::as_server(listener.accept().unwrap().0, shown).unwrap());
        assert_eq!(ending(&application), expected, "after the handshake, {ports}");

        for reason in ["handshake_eof", "stream_cut"] {
            let counted =
                said::ended_in_the_end(arena.victim(), arena.pod(VICTIM).unwrap(), reason, 1.0).unwrap();
            assert_eq!(counted, 1.0, "{reason}");
        }
    }
}
