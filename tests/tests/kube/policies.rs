//! Policies as `kubectl apply` brings them: what they decide, how soon, and what is said of those that do not hold.
