//! Telling errors.

use std::error::Error;

/// An error with all its causes in one line: `the order failed: no reply: connection refused`. A cause that its parent's
/// text ends with already is not repeated. For logs and administrators; tenants get texts of ours.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;
    use crate::contracts::IdentityError;

    #[test]
    fn causes_are_told_once() {
        let inner = IdentityError::Unavailable { source: "connection refused".into() };
        assert_eq!(chain(&inner), "identity is unavailable: connection refused");
        assert_eq!(chain(&std::io::Error::other("full")), "full");
    }
}
