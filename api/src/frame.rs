//! The frames in which several streams share one connection: one byte for the stream, three
//! zero bytes, the payload's length in four bytes (big-endian), the payload.

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Content type of framed streams since API 1.42.
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of unframed streams, and of all of them before API 1.42.
pub const RAW: &str = "application/vnd.docker.raw-stream";

/// The header of a frame with `length` bytes of payload.
pub fn header(stream: Stream, length: u32) -> [u8; 8] {
    let [a, b, c, d] = length.to_be_bytes();
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    [number, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(header(Stream::Stdout, 5), [1, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(
            header(Stream::Stderr, 0x0102_0304),
            [2, 0, 0, 0, 1, 2, 3, 4]
        );
    }
}
