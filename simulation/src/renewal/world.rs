//! What stands in the place of the operating system: the name of the CA, the wall clock, and dice.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use super::weather::Dice;

/// The replicas behind the name of the CA.
pub(super) const REPLICAS: [&str; 2] = ["ca-0", "ca-1"];
pub(super) const PORT: u16 = 15012;

/// When a life begins: some day, and in whole seconds, as certificates are.
pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A life's own.
pub(super) struct World {
    dice: Dice,
}

impl World {
    pub(super) fn new(dice: &Dice) -> Self {
        Self { dice: dice.another() }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Puts a world in the place of the last.
pub(super) fn begin(world: World) {
    WORLD.set(Some(world));
}

/// Time since the start of the life.
pub(super) fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// The wall clock's time.
pub(crate) fn now() -> SystemTime {
    epoch() + elapsed()
}

/// In 0..1.
pub(crate) fn random() -> f64 {
    WORLD.with_borrow_mut(|world| world.as_mut().map_or(0.5, |world| world.dice.share()))
}

/// The name of the CA has both replicas' addresses.
pub(crate) async fn lookup_host(_: &str) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let addresses: Vec<_> =
        REPLICAS.iter().map(|name| SocketAddr::new(turmoil::lookup(*name), PORT)).collect();
    Ok(addresses.into_iter())
}
