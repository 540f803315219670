//! Answers that arrive as one JSON object after another: pull, load, events, stats, wait.

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::{ClientError, Host};

/// Cuts concatenated JSON values out of a byte stream.
#[derive(Debug, Default)]
pub struct JsonCutter {
    buffer: BytesMut,
}

impl JsonCutter {
    /// Takes the next bytes from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole value, `None` when more bytes are needed; an error is a value that can never be read.
    pub fn next_value(&mut self) -> Result<Option<Value>, serde_json::Error> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        match values.next() {
            None => {
                self.buffer.clear();
                Ok(None)
            }
            Some(Ok(value)) => {
                let used = values.byte_offset();
                drop(values);
                // Bytes are kept: the next value may already be here.
                let _ = self.buffer.split_to(used);
                Ok(Some(value))
            }
            Some(Err(error)) if error.is_eof() => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }
}

/// A body read value by value.
pub struct JsonStream {
    pub(super) body: Incoming,
    pub(super) cutter: JsonCutter,
    pub(super) host: Host,
    pub(super) call: String,
}

impl JsonStream {
    /// The next value; `None` at the end of the answer. Cancel-safe: a value is taken whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            match self.cutter.next_value() {
                Ok(Some(value)) => return Ok(Some(value)),
                Ok(None) => {}
                Err(error) => {
                    return Err(ClientError::Unreadable {
                        call: self.call.clone(),
                        reason: error.to_string(),
                    });
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.cutter.push(data);
                    }
                }
                Some(Err(error)) => {
                    return Err(ClientError::Broken {
                        host: self.host.clone(),
                        call: self.call.clone(),
                        reason: error.to_string(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_any_cutting() {
        let bytes = br#"{"status":"a"}
{"status":"b","n":{"x":[1,2]}}{"status":"c"}
"#;
        for step in 1..bytes.len() {
            let mut cutter = JsonCutter::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                cutter.push(chunk);
                while let Some(value) = cutter.next_value().unwrap() {
                    seen.push(value["status"].as_str().unwrap().to_owned());
                }
            }
            assert_eq!(seen, ["a", "b", "c"], "step {step}");
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let mut cutter = JsonCutter::default();
        cutter.push(b"<html>");
        assert!(cutter.next_value().is_err());
    }
}
