//! Connections that must not notice what is done to the mesh: one that is held open, and many that are opened.
//!
//! Both are kept up inside a pod, so that nothing on the way to it counts for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

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
    let count = || lines(place, from, "echoed");
    let before = count()?;
    place.until(GOES_ON_WITHIN, &format!("the connection of {from} goes on"), || {
        Ok((count()? > before).then_some(()))
    })?;
    let ended = place.sh(from, "main", "cat /tmp/ended")?;
    ensure!(ended.is_empty(), "the connection of {from} has ended: {ended}");
    let last = place.sh(from, "main", "n=$(wc -l </tmp/echoed); sed -n ${n}p /tmp/echoed; echo $n")?;
    let numbers: Vec<u64> = last.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(matches!(numbers[..], [last, count] if last + 1 == count), "{from}: a number is missing: {last}");
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

/// Nobody of those was left without an answer, and there are more all the time; how many there were.
pub fn all_answered(place: &Place, from: &str) -> Result<u64> {
    let before = lines(place, from, "answered")?;
    place.until(GOES_ON_WITHIN, &format!("{from} dials and is answered"), || {
        Ok((lines(place, from, "answered")? > before).then_some(()))
    })?;
    let unanswered = place.sh(from, "main", "cat /tmp/unanswered")?;
    ensure!(unanswered.is_empty(), "dials of {from} were not answered: {unanswered}");
    Ok(before)
}

fn background(place: &Place, pod: &str, line: &str) -> Result<()> {
    place.sh(pod, "main", &format!("nohup sh -c '{line}' >/dev/null 2>&1 &")).map(drop)
}

fn lines(place: &Place, pod: &str, file: &str) -> Result<u64> {
    let count = place.sh(pod, "main", &format!("wc -l </tmp/{file}"))?;
    count.trim().parse().with_context(|| format!("{pod}: lines of {file}: {count}"))
}
