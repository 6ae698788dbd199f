//! Connections that must not notice what is done to the mesh: one that is held open, and many that are opened.
//!
//! Both are kept up inside a pod, so that nothing on the way to it counts for them.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::place::Place;

/// Far longer than either takes to go on.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// The port on which [`Toolbox::echo`](super::Toolbox::echo) listens.
const ECHO: u16 = 47100;

/// Has the pod `from` hold a connection to the pod `echo` that says a number five times a second, for as long as the
/// pod lives.
pub fn hold_one_open(place: &Place, from: &str, echo: &str) -> Result<()> {
    let echo = place.address(echo)?;
    let numbers = "i=0; while echo $i; do i=$((i + 1)); sleep 0.2; done";
    let line =
        format!("({numbers}) | socat - TCP:{echo}:{ECHO} >/tmp/echoed 2>/tmp/ended; echo ended >>/tmp/ended");
    background(place, from, &line)?;
    place.until(GOES_ON_WITHIN, "the connection carries numbers", || {
        Ok((place.sh(from, "main", "wc -l </tmp/echoed")?.trim() != "0").then_some(()))
    })
}

/// That connection has never ended, no number is missing, and it still goes on.
pub fn still_open(place: &Place, from: &str) -> Result<()> {
    let ended = "cat /tmp/ended; n=$(wc -l </tmp/echoed); [ \"$(sed -n ${n}p /tmp/echoed)\" = $((n - 1)) ] || echo gap";
    let complaint = place.sh(from, "main", &format!("{}; {ended}", more_lines("echoed")))?;
    ensure!(complaint.trim().is_empty(), "the connection of {from}: {complaint}");
    Ok(())
}

/// Has the pod `from` dial the pod `echo` anew all the time, and count who was answered and who was not.
pub fn keep_dialling(place: &Place, from: &str, echo: &str) -> Result<()> {
    let echo = place.address(echo)?;
    let dial = format!("echo hello | socat -T10 -t10 - TCP:{echo}:{ECHO},connect-timeout=10");
    let line = format!(
        "while sleep 0.2; do \
         if [ \"$({dial} 2>&1)\" = hello ]; then echo >>/tmp/answered; else date >>/tmp/unanswered; fi; done"
    );
    place.sh(from, "main", "touch /tmp/answered /tmp/unanswered")?;
    background(place, from, &line)
}

/// Nobody of those was left without an answer, and there are more all the time.
pub fn all_answered(place: &Place, from: &str) -> Result<()> {
    let script = format!("{}; cat /tmp/unanswered", more_lines("answered"));
    let complaint = place.sh(from, "main", &script)?;
    ensure!(complaint.trim().is_empty(), "dials of {from}: {complaint}");
    Ok(())
}

/// A script that waits for a file to have more lines, and says so where it never has.
fn more_lines(file: &str) -> String {
    let tries = GOES_ON_WITHIN.as_secs() * 5;
    format!(
        "n=$(wc -l </tmp/{file}); for i in $(seq {tries}); do [ $(wc -l </tmp/{file}) -gt $n ] && break; sleep 0.2; \
         done; [ $(wc -l </tmp/{file}) -gt $n ] || echo no more {file}"
    )
}

fn background(place: &Place, pod: &str, line: &str) -> Result<()> {
    place.sh(pod, "main", &format!("nohup sh -c '{line}' >/dev/null 2>&1 &")).map(drop)
}
