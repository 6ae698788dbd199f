//! A real ring without a mesh: what the lab itself must be able to show before anything is compared with it.
use ringmail_lab::ignite::*;
use ringmail_lab::network::Network;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn story(version: IgniteVersion) {
    let folder = tempfile::Builder::new().disable_cleanup(true).tempdir().unwrap();
    println!("{}", folder.path().display());
    let begin = Instant::now();
    let installation = Installation::prepare(version).unwrap();
    println!("{version}: prepared in {:?}", begin.elapsed());
    let begin = Instant::now();
    let network = Network::create(&["n1", "n2", "n3", "client"]).unwrap();
    println!("network in {:?}", begin.elapsed());
    let pods: Vec<_> = network.pods()[..3].iter().collect();
    for formation in [Formation::OneAfterAnother, Formation::AtOnce] {
        let mut ring = Ring::form(&installation, &pods, formation, folder.path()).unwrap();
        println!("{version} {formation:?} in {:?}: {:?}", ring.formed_in(), ring.assert_whole(3).unwrap());
        if formation == Formation::OneAfterAnother {
            continue;
        }
        let begin = Instant::now();
        let load = ThinLoad::start(&installation, network.pod("client").unwrap(), folder.path()).unwrap();
        let addresses: Vec<_> = pods.iter().map(|pod| SocketAddr::new(pod.ip(), THIN_PORT)).collect();
        load.connect(&addresses, true).unwrap();
        load.create_cache("keys", 1, Atomicity::Atomic).unwrap();
        println!("client in {:?}", begin.elapsed());
        let begin = Instant::now();
        load.fill("keys", 20_000, 100).unwrap();
        println!("fill {:?}", begin.elapsed());
        load.run("keys", LoadShape::default()).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        println!("{:?}", load.mark().unwrap());
        let killed = now_ms();
        ring.node_mut("n2").unwrap().kill9().unwrap();
        for name in ["n1", "n3"] {
            let failed = ring.node(name).unwrap().wait_failed("n2", Duration::from_secs(20)).unwrap();
            println!("{name}: NODE_FAILED after {} ms", failed.at_ms - killed);
        }
        println!("{:?}", ring.wait_whole(2).unwrap());
        std::thread::sleep(Duration::from_secs(2));
        println!("{:?}", load.halt().unwrap());
        println!("{:?} {:?}", load.check().unwrap(), load.verify("keys", 20_000).unwrap());
        let begin = Instant::now();
        println!("{:?}", load.big_value("keys", 100 << 20));
        println!("big {:?}", begin.elapsed());
    }
}
#[test]
fn plain_216() {
    story(IgniteVersion::V2_16)
}
#[test]
fn plain_217() {
    story(IgniteVersion::V2_17)
}
