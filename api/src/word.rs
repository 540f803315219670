//! Docker's words for the choices of services and tasks.

use model::{
    Refusal, TaskState,
    service::{EndpointMode, FailureAction, Protocol, PublishMode, UpdateOrder, UpdateState},
    task::{MountKind, RestartCondition},
};

/// A choice that Docker writes as a word.
pub trait Word: Copy + PartialEq + 'static {
    /// Every choice with its word; the first one is meant by an empty text.
    const WORDS: &'static [(Self, &'static str)];

    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(choice, _)| *choice == self)
            .map_or("", |(_, word)| word)
    }

    /// Reads the word in any case; an unknown one is refused with the known ones.
    fn read(field: &str, text: &str) -> Result<Self, Refusal> {
        let known = |(_, word): &&(Self, &str)| word.eq_ignore_ascii_case(text);
        let found = if text.is_empty() {
            Self::WORDS.first()
        } else {
            Self::WORDS.iter().find(known)
        };
        found.map(|(choice, _)| *choice).ok_or_else(|| {
            let words: Vec<&str> = Self::WORDS.iter().map(|(_, word)| *word).collect();
            Refusal::invalid(format!(
                "{field}: {text:?} is not one of {}",
                words.join(", ")
            ))
        })
    }
}

macro_rules! words {
    ($($kind:ty { $($choice:ident => $word:literal),* $(,)? })*) => {
        $(impl Word for $kind {
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$choice, $word)),*];
        })*
    };
}

words! {
    FailureAction { Pause => "pause", Continue => "continue", Rollback => "rollback" }
    UpdateOrder { StopFirst => "stop-first", StartFirst => "start-first" }
    UpdateState {
        Updating => "updating",
        Paused => "paused",
        Completed => "completed",
        RollbackStarted => "rollback_started",
        RollbackPaused => "rollback_paused",
        RollbackCompleted => "rollback_completed",
    }
    EndpointMode { Vip => "vip", Dnsrr => "dnsrr" }
    Protocol { Tcp => "tcp", Udp => "udp", Sctp => "sctp" }
    PublishMode { Ingress => "ingress", Host => "host" }
    RestartCondition { Any => "any", None => "none", OnFailure => "on-failure" }
    MountKind {
        Bind => "bind",
        Volume => "volume",
        Tmpfs => "tmpfs",
        Image => "image",
        Npipe => "npipe",
        Cluster => "cluster",
    }
    TaskState {
        New => "new",
        Pending => "pending",
        Assigned => "assigned",
        Accepted => "accepted",
        Preparing => "preparing",
        Ready => "ready",
        Starting => "starting",
        Running => "running",
        Complete => "complete",
        Shutdown => "shutdown",
        Failed => "failed",
        Rejected => "rejected",
        Remove => "remove",
        Orphaned => "orphaned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Word + std::fmt::Debug>() {
        for (choice, word) in T::WORDS {
            assert_eq!(choice.word(), *word);
            assert_eq!(T::read("x", &word.to_uppercase()), Ok(*choice));
        }
        assert_eq!(T::read("x", ""), Ok(T::WORDS[0].0));
        let refusal = T::read("Field", "nonsense").unwrap_err();
        assert!(
            refusal.message.starts_with("Field: \"nonsense\""),
            "{refusal}"
        );
        assert!(refusal.message.contains(T::WORDS[0].1), "{refusal}");
    }

    #[test]
    fn every_word_is_read_back() {
        there_and_back::<FailureAction>();
        there_and_back::<UpdateOrder>();
        there_and_back::<UpdateState>();
        there_and_back::<EndpointMode>();
        there_and_back::<Protocol>();
        there_and_back::<PublishMode>();
        there_and_back::<RestartCondition>();
        there_and_back::<MountKind>();
        there_and_back::<TaskState>();
    }

    #[test]
    fn the_states_are_the_models() {
        for state in TaskState::ALL {
            assert_eq!(state.word(), state.as_str());
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(protocol.word(), protocol.as_str());
        }
    }
}
