//! The server's decision without its sockets: for whatever wants to know, above all tests with
//! foreign packets.

use super::{
    answer::{Outcome, Scratch, Transport, answer},
    wire::PLAIN_UDP,
    zone::Zone,
};
use crate::desired::Desired;

/// Answers for the sandboxes of a wish.
pub struct Responder {
    zone: Zone,
    scratch: Scratch,
}

impl Responder {
    pub fn new(desired: &Desired) -> Self {
        Self {
            zone: Zone::from(desired),
            scratch: Scratch::new(),
        }
    }

    /// What `sandbox` gets for `packet`; nothing where it is ignored or passed on. `room` is that
    /// of an answer over TCP, and UDP has what the packet says.
    pub fn reply(&mut self, sandbox: &str, packet: &[u8], room: Option<usize>) -> Option<Vec<u8>> {
        let transport = room.map_or(Transport::Udp, |_| Transport::Tcp);
        let mut out = vec![0; room.unwrap_or(4096).max(PLAIN_UDP)];
        let outcome = answer(
            &self.zone,
            sandbox,
            packet,
            transport,
            &mut self.scratch,
            &mut out,
        );
        match outcome {
            Outcome::Reply(length) => {
                out.truncate(length);
                Some(out)
            }
            Outcome::Forward(_) | Outcome::Ignore => None,
        }
    }
}
