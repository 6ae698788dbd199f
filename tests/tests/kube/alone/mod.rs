//! Scenarios that take parts of the mesh or of the cluster away, or need that nobody else touches them. Each has the cluster for
//! itself: they run one after the other, and where there is a second cluster, beside the rest.

mod absences;
mod alerts;
mod faults;
mod outages;
mod precedence;
mod succession;
mod versions;
