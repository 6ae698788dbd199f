//! Memory that is given back: what only starting needed, and what a burst of connections has left.
//!
//! A sidecar is judged by what it holds while nothing happens. Nothing here is on the path of a byte: it runs on the
//! control thread, and a page that is needed after all comes back by itself.

use std::{sync::Arc, time::Duration};

use tokio::time::{interval, sleep};
use tracing::debug;

use crate::{sys, worker::Workers};

/// When everything that only starting does has been done: credentials are there within a second.
const STARTED: Duration = Duration::from_secs(1);

/// How often it is asked whether a burst is over, or the proxy at rest.
const LOOK: Duration = Duration::from_secs(1);

/// Connections that must be gone for the heap to be worth a look: together they held some megabytes.
const BURST: usize = 256;

/// Runs for ever beside the workers.
pub async fn give_back(workers: Arc<Workers>) {
    sleep(STARTED).await;
    give_back_all();
    let (mut most, mut begun) = (0, workers.begun_connections());
    let mut look = interval(LOOK);
    loop {
        look.tick().await;
        let open = workers.open_connections();
        // Where one is open, its next byte would wait for the pages.
        if open == 0 && workers.begun_connections() != begun {
            debug!("no connection is open any more: the heap and the program's pages are given back");
            give_back_all();
            (most, begun) = (0, workers.begun_connections());
        } else if is_over(&mut most, open) {
            debug!(open, "the heap of a burst is given back");
            sys::trim_heap();
        }
    }
}

/// Has the kernel forget which pages of the program were used, and gives it the heap's free ones: settings were read
/// and keys made once.
pub fn give_back_all() {
    if let Err(error) = sys::forget_program_pages() {
        debug!(%error, "pages of the program that are not needed stay resident");
    }
    sys::trim_heap();
}

/// Whether more than half of the connections that there were at once, and enough of them, are gone.
fn is_over(most: &mut usize, open: usize) -> bool {
    *most = (*most).max(open);
    let over = *most >= 2 * open + BURST;
    if over {
        *most = open;
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_when_half_of_it_is_gone_and_again_when_half_of_the_rest_is() {
        let mut most = 0;
        let looks =
            [(0, false), (5000, false), (4000, false), (2372, true), (2000, false), (1000, true), (0, true)];
        for (open, over) in looks {
            assert_eq!(is_over(&mut most, open), over, "{open}");
        }
        assert!(!is_over(&mut most, BURST - 1));
        assert!(!is_over(&mut most, 0), "too few to be worth it");
    }
}
