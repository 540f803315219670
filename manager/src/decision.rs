//! What a loop of the leader decides: changes to make now, and when to look again.

use crate::store::StoreChange;

/// Changes that one decision holds at most, so that no entry grows large; what remains is
/// decided at once afterwards ([`Decision::look_at`] now).
pub const BATCH: usize = 1000;

/// The outcome of one look at the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be made in one transaction, in order.
    pub changes: Vec<StoreChange>,
    /// Look again at this moment (nanoseconds since the Unix epoch) although nothing changed.
    pub again: Option<i64>,
}

impl Decision {
    /// Look again at `moment`, or sooner if that was asked already.
    pub fn look_at(&mut self, moment: i64) {
        self.again = Some(self.again.map_or(moment, |other| other.min(moment)));
    }
}
