//! A probe on the wire: a magic word, question or answer, the asker's number, and nothing up to its size.

/// Of a small probe; a full-size one is as long as the interface allows.
pub const SMALL: usize = 32;
const MAGIC: [u8; 4] = *b"OVNP";
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;
const HEAD: usize = 13;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Question,
    Answer,
}

/// Writes a question of `size` bytes.
pub fn question(size: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; size.max(HEAD)];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = QUESTION;
    bytes[5..HEAD].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// What a packet is, and the asker's number; nothing for what is no probe.
pub fn read(bytes: &[u8]) -> Option<(Kind, u64)> {
    let head = bytes.first_chunk::<HEAD>()?;
    let kind = match head[4] {
        QUESTION => Kind::Question,
        ANSWER => Kind::Answer,
        _ => return None,
    };
    let number = u64::from_be_bytes(*head.last_chunk::<8>()?);
    (head[..4] == MAGIC).then_some((kind, number))
}

/// Makes a question the answer to it, of the same size.
pub fn turn(bytes: &mut [u8]) {
    if let Some(kind) = bytes.get_mut(4) {
        *kind = ANSWER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_question_turned() {
        let mut bytes = question(SMALL, 7 << 40);
        assert_eq!(
            (bytes.len(), read(&bytes)),
            (SMALL, Some((Kind::Question, 7 << 40)))
        );
        turn(&mut bytes);
        assert_eq!(read(&bytes), Some((Kind::Answer, 7 << 40)));
        assert_eq!(read(&bytes[..12]), None);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), None);
        bytes[4] = 9;
        assert_eq!(read(&bytes), None);
        assert_eq!(read(&[]), None);
    }
}
