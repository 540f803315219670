//! Why nodes cannot have a task, in Docker's words.

/// The filters in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Unready,
    Resources,
    Constraints,
    Platform,
    Port,
    Replicas,
}

impl Obstacle {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Unready, "not available for new tasks"),
        (Self::Resources, "insufficient resources"),
        (Self::Constraints, "scheduling constraints not satisfied"),
        (Self::Platform, "unsupported platform"),
        (Self::Port, "host-mode port already in use"),
        (Self::Replicas, "max replicas per node limit exceed"),
    ];
}

/// How many nodes each filter held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Obstacles([u32; Obstacle::ALL.len()]);

impl Obstacles {
    pub(super) fn met(&mut self, obstacle: Obstacle) {
        self.0[obstacle as usize] += 1;
    }

    /// `no suitable node (insufficient resources on 2 nodes; …)`, the most frequent first.
    pub(super) fn sentence(&self) -> String {
        let mut met: Vec<(u32, Obstacle, &str)> = Obstacle::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|((obstacle, words), count)| (count, obstacle, words))
            .collect();
        met.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        let parts: Vec<String> = met
            .into_iter()
            .map(|(count, obstacle, words)| {
                let nodes = if count == 1 {
                    "1 node".to_owned()
                } else {
                    format!("{count} nodes")
                };
                match obstacle {
                    Obstacle::Unready => format!("{nodes} {words}"),
                    _ => format!("{words} on {nodes}"),
                }
            })
            .collect();
        if parts.is_empty() {
            return "no suitable node".to_owned();
        }
        format!("no suitable node ({})", parts.join("; "))
    }
}
