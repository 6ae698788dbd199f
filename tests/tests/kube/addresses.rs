//! Addresses as Kubernetes gives them: Services, both families, one's own, and those that belonged to somebody else.
