//! What a request to the API server failed by, in the kinds that call for different answers.

use std::error::Error;
use std::time::Duration;

use tokio::time::timeout;

use super::REQUEST_TIMEOUT;

/// Longest text of a fault that is passed on.
const MAX_TEXT: usize = 300;

/// Why a request to the API server has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiFault {
    /// The object is there already.
    #[error("already exists")]
    AlreadyExists,
    /// There is no answer, or none that could be used: the API server is away, busy or ill.
    #[error("api server gives no answer: {0}")]
    Away(String),
    /// Somebody else changed the object in between.
    #[error("the object was changed in between: {0}")]
    Conflict(String),
    /// The API server finds fault with the request.
    #[error("api server finds fault with the request: {0}")]
    Invalid(String),
    /// There is no such object.
    #[error("not found")]
    NotFound,
    /// We may not: the role lacks the permission, or the own token is not accepted.
    #[error("api server refuses: {0}")]
    Refused(String),
}

impl From<kube::Error> for ApiFault {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Away(chain(&error)) };
        let text = cut(&status.message);
        match (status.code, status.reason.as_str()) {
            (401 | 403, _) => Self::Refused(text),
            (404, _) => Self::NotFound,
            (409, "AlreadyExists") => Self::AlreadyExists,
            (409, _) => Self::Conflict(text),
            (400..=499, _) if ![408, 429].contains(&status.code) => Self::Invalid(text),
            (code, _) => Self::Away(format!("{code} {text}")),
        }
    }
}

impl From<kube::runtime::watcher::Error> for ApiFault {
    fn from(error: kube::runtime::watcher::Error) -> Self {
        use kube::runtime::watcher::Error as Watch;
        match error {
            Watch::InitialListFailed(error) | Watch::WatchStartFailed(error) | Watch::WatchFailed(error) => {
                error.into()
            }
            Watch::WatchError(status) => kube::Error::Api(status).into(),
            Watch::NoResourceVersion => Self::Away("an answer without resource version".to_owned()),
        }
    }
}

impl ApiFault {
    /// Whether waiting may help: the start then waits instead of ending.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) | Self::Refused(_) | Self::Conflict(_) => true,
            Self::AlreadyExists | Self::Invalid(_) | Self::NotFound => false,
        }
    }
}

/// The result of `request`, which has [`REQUEST_TIMEOUT`].
pub(crate) async fn bounded<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiFault> {
    within(REQUEST_TIMEOUT, request).await
}

async fn within<T>(
    deadline: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiFault> {
    match timeout(deadline, request).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiFault::Away(format!("nothing within {deadline:?}"))),
    }
}

/// What an object is called where there is one.
pub(crate) fn found<T>(result: Result<T, ApiFault>) -> Result<Option<T>, ApiFault> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(ApiFault::NotFound) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// An error with its causes: the outermost text alone often says nothing.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    cut(&text)
}

pub(crate) fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn fault(code: u16, reason: &str) -> ApiFault {
        let status =
            Status { code, reason: reason.to_owned(), message: "text".to_owned(), ..Status::default() };
        kube::Error::Api(Box::new(status)).into()
    }

    #[test]
    fn a_busy_or_ill_server_is_away_and_a_missing_permission_is_a_refusal() {
        let text = || "text".to_owned();
        let away = |code: u16| ApiFault::Away(format!("{code} text"));
        for (code, reason, expected) in [
            (401, "Unauthorized", ApiFault::Refused(text())),
            (403, "Forbidden", ApiFault::Refused(text())),
            (404, "NotFound", ApiFault::NotFound),
            (409, "AlreadyExists", ApiFault::AlreadyExists),
            (409, "Conflict", ApiFault::Conflict(text())),
            (422, "Invalid", ApiFault::Invalid(text())),
            (408, "Timeout", away(408)),
            (429, "TooManyRequests", away(429)),
            (500, "InternalError", away(500)),
            (503, "", away(503)),
            (0, "", away(0)),
        ] {
            assert_eq!(fault(code, reason), expected);
        }
    }
}
