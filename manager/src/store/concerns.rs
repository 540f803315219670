//! Which changes of a commit concern which host. Each session looks at its own ones: with as many
//! sessions as tasks, looking at all would be the square of that.

use std::collections::HashMap;

use model::NodeId;

use super::{StoreChange, Tables};

/// Places in a commit's changes.
#[derive(Debug, Default)]
pub struct Concerns {
    /// Changes that any host may have to be told of.
    shared: Vec<usize>,
    /// Changes of tasks, which concern their host only.
    own: HashMap<NodeId, Vec<usize>>,
}

impl Concerns {
    /// `before` is the state that the changes were made to.
    pub fn of(before: &Tables, changes: &[StoreChange]) -> Self {
        let mut concerns = Self::default();
        for (at, change) in changes.iter().enumerate() {
            let (id, after) = match change {
                StoreChange::SetTask(task) => (&task.id, task.node.as_ref()),
                StoreChange::RemoveTask(id) => (id, None),
                _ => {
                    concerns.shared.push(at);
                    continue;
                }
            };
            let was = before.work().task(id).and_then(|task| task.node.as_ref());
            for node in after
                .into_iter()
                .chain(was.filter(|was| after != Some(was)))
            {
                let own = concerns.own.entry(node.clone());
                own.or_default().push(at);
            }
        }
        concerns
    }

    /// Those of `changes` that the node has to look at; their order is not kept.
    pub fn pick<'a>(
        &'a self,
        changes: &'a [StoreChange],
        node: &NodeId,
    ) -> impl Iterator<Item = &'a StoreChange> + Clone {
        let own = self.own.get(node).map_or(&[][..], Vec::as_slice);
        let places = self.shared.iter().chain(own);
        places.filter_map(|at| changes.get(*at))
    }
}
