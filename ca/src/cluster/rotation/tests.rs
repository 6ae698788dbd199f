use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn td() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn settled() -> RootSecret {
    RootSecret::first(&td(), SystemTime::now()).unwrap()
}

/// The state after `stages`, each of which must have done something.
fn after(stages: &[Stage]) -> RootSecret {
    let mut last = "";
    stages.iter().fold(settled(), |root, stage| {
        let next = step(root, *stage, last, &td(), SystemTime::now()).unwrap();
        last = word(*stage);
        next.secret.unwrap()
    })
}

fn try_step(stages: &[Stage], stage: Stage) -> Result<Step, RotateError> {
    let last = stages.last().map(|stage| word(*stage)).unwrap_or_default();
    step(after(stages), stage, last, &td(), SystemTime::now())
}

#[test]
fn the_bundle_carries_both_roots_from_the_first_stage_to_the_last() {
    use Stage::{Retire, Sign, Trust};
    let trusted = after(&[Trust]);
    assert_eq!(trusted.roots.len(), 2);
    assert_eq!(trusted.signing.certificate, trusted.roots[0], "the old one signs");
    trusted.prove("secret", &td(), SystemTime::now()).unwrap();
    let signed = after(&[Trust, Sign]);
    assert_eq!(signed.roots.len(), 2);
    assert_eq!(signed.signing.certificate, signed.roots[1], "the new one signs");
    signed.prove("secret", &td(), SystemTime::now()).unwrap();
    let retired = after(&[Trust, Sign, Retire]);
    assert_eq!(retired.roots, std::slice::from_ref(&retired.signing.certificate));
}

#[test]
fn no_stage_comes_before_its_turn_and_each_can_be_called_again() {
    use Stage::{Retire, Sign, Status, Trust, Undo};
    let refused = |stages: &[Stage], stage| matches!(try_step(stages, stage), Err(RotateError::Order(_)));
    assert!(refused(&[], Sign) && refused(&[Trust], Retire) && refused(&[Trust, Sign], Trust));
    for (stages, stage) in [
        (&[][..], Retire),
        (&[], Undo),
        (&[], Status),
        (&[Trust], Trust),
        (&[Trust], Status),
        (&[Trust, Sign], Sign),
        (&[Trust, Sign], Status),
    ] {
        assert!(try_step(stages, stage).unwrap().secret.is_none(), "{stages:?} {stage:?}");
    }
}

#[test]
fn undo_goes_back_and_a_root_that_has_signed_does_not_leave_at_once() {
    use Stage::{Sign, Trust, Undo};
    let trusted = after(&[Trust]);
    let back = after(&[Trust, Sign, Undo]);
    assert!(matches!(back.rotation, Rotation::Trusted(_)));
    assert_eq!(back.roots.len(), trusted.roots.len());
    assert_eq!(after(&[Trust, Undo]).roots.len(), 1);
    assert_eq!(try_step(&[Trust], Undo).unwrap().min_age, None);
    assert_eq!(try_step(&[Trust, Sign, Undo], Undo).unwrap().min_age, Some(UNTIL_RETIRE));
}

#[test]
fn a_stage_waits_for_the_one_before() {
    let now = SystemTime::now();
    let since = timestamp(now - HOUR);
    assert!(check_age(Some(&since), HOUR, now).is_ok());
    let error = check_age(Some(&since), UNTIL_SIGN, now).unwrap_err().to_string();
    assert!(error.contains("1 h 0 min ago, expected at least 12 h 0 min"), "{error}");
    assert!(check_age(None, UNTIL_SIGN, now).is_ok());
    assert!(check_age(Some(&timestamp(now + HOUR)), UNTIL_SIGN, now).is_err(), "a clock that went back");
}

#[test]
fn the_trust_domain_is_the_old_roots() {
    assert_eq!(trust_domain(&settled().signing.certificate).unwrap(), td());
}
