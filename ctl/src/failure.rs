//! What a command hands back when it did not work: an exit status and the sentence to print.

use std::io;

use crate::client::ClientError;

/// The end of a command that is not plain success.
///
/// A container's own exit status travels here too, with no message: `run` then
/// ends with that status and prints nothing of its own.
#[derive(Debug)]
pub struct Failure {
    /// Exit status of the program, 1..=255.
    pub status: i32,
    /// Printed on standard error; `None` prints nothing.
    pub message: Option<String>,
    /// HTTP status of the daemon's refusal, when there was one.
    pub refusal: Option<u16>,
}

impl Failure {
    /// An ordinary failure: status 1 with a sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_status(1, message)
    }

    /// A failure with its own exit status.
    pub fn with_status(status: i32, message: impl Into<String>) -> Self {
        Self {
            status,
            message: Some(message.into()),
            refusal: None,
        }
    }

    /// Ends the program with `status` and prints nothing (a container's own exit status).
    pub fn silent(status: i32) -> Self {
        Self {
            status,
            message: None,
            refusal: None,
        }
    }

    /// True when the daemon answered 404.
    pub fn is_not_found(&self) -> bool {
        self.refusal == Some(404)
    }

    /// The sentence, or an empty one.
    pub fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let refusal = match &error {
            ClientError::Refused { status, .. } => Some(*status),
            ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Unreadable { .. }
            | ClientError::TooOld { .. } => None,
        };
        Self {
            status: 1,
            message: Some(error.to_string()),
            refusal,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader of our output went away (`ovnctl ps | head`): nothing to tell anyone.
            return Self::silent(141);
        }
        Self::new(error.to_string())
    }
}

impl From<crate::template::TemplateError> for Failure {
    fn from(error: crate::template::TemplateError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
