//! The framing of attach, exec and logs without a terminal.
//!
//! Source: Docker Engine API, "Attach to a container", stream format: eight bytes
//! (stream number, three zeroes, big-endian length), then that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Whose bytes a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output (and an echoed standard input).
    Out,
    /// Standard error.
    Err,
    /// A message of the daemon itself: the stream ends with it.
    Daemon,
}

/// Cuts a byte stream into pieces of one source each; a long frame is handed on as it arrives.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    current: Option<(Source, usize)>,
}

impl Frames {
    /// Takes the next bytes from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece, `None` when more bytes are needed.
    ///
    /// Errors when the bytes are no frames at all (a terminal's raw stream read as frames).
    pub fn next_piece(&mut self) -> Result<Option<(Source, Bytes)>, String> {
        loop {
            if let Some((source, left)) = self.current {
                if left == 0 {
                    self.current = None;
                    continue;
                }
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let taken = left.min(self.buffer.len());
                self.current = Some((source, left - taken));
                return Ok(Some((source, self.buffer.split_to(taken).freeze())));
            }
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let source = match self.buffer[0] {
                0 | 1 => Source::Out,
                2 => Source::Err,
                3 => Source::Daemon,
                other => {
                    return Err(format!(
                        "unknown stream number {other} in the daemon's output"
                    ));
                }
            };
            self.buffer.advance(4);
            let length = self.buffer.get_u32() as usize;
            self.current = Some((source, length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    fn read_in_steps(bytes: &[u8], step: usize) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut frames = Frames::default();
        for chunk in bytes.chunks(step) {
            frames.push(chunk);
            while let Some((source, piece)) = frames.next_piece().unwrap() {
                match source {
                    Source::Out => out.extend_from_slice(&piece),
                    Source::Err | Source::Daemon => err.extend_from_slice(&piece),
                }
            }
        }
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn frames_survive_any_cutting() {
        let bytes = [
            frame(1, "hello "),
            frame(2, "oops"),
            frame(1, ""),
            frame(1, "world"),
            frame(3, "!"),
        ]
        .concat();
        for step in 1..bytes.len() {
            assert_eq!(
                read_in_steps(&bytes, step),
                ("hello world".to_owned(), "oops!".to_owned()),
                "step {step}"
            );
        }
    }

    #[test]
    fn a_raw_stream_is_not_taken_for_frames() {
        let mut frames = Frames::default();
        frames.push(b"total 12\n");
        assert!(frames.next_piece().is_err());
    }
}
