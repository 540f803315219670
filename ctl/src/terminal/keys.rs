//! The key sequence that leaves a container running and gives the terminal back.

/// A sequence of bytes such as ctrl-p ctrl-q.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or `ctrl-a,x`; an empty text is the default.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut bytes = Vec::new();
        for key in text.split(',') {
            let mut characters = key.chars();
            let byte = match (
                characters.next(),
                characters.next(),
                key.strip_prefix("ctrl-"),
            ) {
                (Some(only), None, _) if only.is_ascii() => only as u8,
                (_, _, Some(control)) => match control.as_bytes() {
                    [letter @ b'a'..=b'z'] => letter - b'a' + 1,
                    [b'@'] => 0,
                    [b'['] => 27,
                    [b'\\'] => 28,
                    [b']'] => 29,
                    [b'^'] => 30,
                    [b'_'] => 31,
                    _ => return Err(format!("--detach-keys {text:?}: there is no key {key:?}")),
                },
                _ => {
                    return Err(format!(
                        "--detach-keys {text:?}: write keys such as ctrl-p,ctrl-q"
                    ));
                }
            };
            bytes.push(byte);
        }
        Ok(Self(bytes))
    }
}

/// Finds the sequence in what is typed; keys that may begin it are held back until the next one.
#[derive(Debug)]
pub struct KeyFilter {
    keys: DetachKeys,
    held: usize,
}

impl KeyFilter {
    /// A filter for one stream.
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, held: 0 }
    }

    /// What to pass on, and whether the sequence is complete.
    pub fn push(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys.0[self.held] {
                self.held += 1;
                if self.held == self.keys.0.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys.0[..self.held]);
            self.held = usize::from(byte == self.keys.0[0]);
            if self.held == 0 {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let cases = [
            ("", Some(vec![16, 17])),
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("ctrl-a,x", Some(vec![1, b'x'])),
            ("ctrl-@", Some(vec![0])),
            ("q", Some(vec![b'q'])),
            ("ctrl-ab", None),
            ("alt-x", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(DetachKeys::parse(text).ok().map(|k| k.0), wanted, "{text}");
        }
    }

    #[test]
    fn the_sequence_is_found_and_nothing_else_is_lost() {
        let run = |pieces: &[&[u8]]| {
            let mut filter = KeyFilter::new(DetachKeys::default());
            let mut out = Vec::new();
            for piece in pieces {
                let (pass, detached) = filter.push(piece);
                out.extend(pass);
                if detached {
                    return (out, true);
                }
            }
            (out, false)
        };
        assert_eq!(run(&[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(run(&[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(run(&[b"\x10", b"x\x10y"]), (b"\x10x\x10y".to_vec(), false));
        assert_eq!(run(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
    }
}
