//! The messages of workload discovery, as Istio's agents speak it.
