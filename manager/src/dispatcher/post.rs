//! Commits on their way to sessions. A commit wakes those whose hosts it concerns, and nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::NodeId;
use tokio::sync::mpsc;

use super::Concerns;
use crate::store::{Commit, Store, StoreChange, Tables, Watched};

/// Commits that concern it and that a session may be behind before it has to start over. Each of them
/// keeps the state of its time.
const DEPTH: usize = 128;

/// The boxes of all sessions with this manager.
#[derive(Default)]
pub struct Post {
    boxes: Mutex<HashMap<NodeId, Vec<mpsc::Sender<Letter>>>>,
}

/// What a session is to look at.
#[derive(Clone)]
pub enum Letter {
    Commit(Arc<Commit>, Arc<Concerns>),
    /// The session was too slow, or the store was restored: this is the state to go on from.
    StartOver(Arc<Tables>),
}

/// Where one session's letters arrive.
pub struct Mailbox {
    post: Arc<Post>,
    store: Store,
    node: NodeId,
    letters: mpsc::Receiver<Letter>,
    /// The state that the session has.
    index: u64,
}

impl Post {
    /// Carries what the store commits after this call; ends only by being dropped.
    pub(crate) fn run(self: Arc<Self>, store: &Store) -> impl Future<Output = ()> + use<> {
        let (mut before, mut watch) = store.view_and_watch();
        async move {
            loop {
                match watch.next().await {
                    Watched::Commit(commit) => {
                        if !self.lock().is_empty() {
                            let concerns = Concerns::of(&before, &commit.tables, &commit.changes);
                            self.send(&Letter::Commit(Arc::clone(&commit), Arc::new(concerns)));
                        }
                        before = Arc::clone(&commit.tables);
                    }
                    Watched::StartOver(tables) => {
                        before = Arc::clone(&tables);
                        self.send(&Letter::StartOver(tables));
                    }
                }
            }
        }
    }

    /// The latest committed state, and every later commit that concerns the node.
    pub fn open(self: &Arc<Self>, store: &Store, node: &NodeId) -> (Arc<Tables>, Mailbox) {
        let (sender, letters) = mpsc::channel(DEPTH);
        let mut boxes = self.lock();
        let of_node = boxes.entry(node.clone()).or_default();
        of_node.retain(|other| !other.is_closed());
        of_node.push(sender);
        drop(boxes);
        // After the box is there: what is committed between comes in both, and is known by its index.
        let tables = store.view();
        let mailbox = Mailbox {
            post: Arc::clone(self),
            store: store.clone(),
            node: node.clone(),
            letters,
            index: tables.index(),
        };
        (tables, mailbox)
    }

    fn send(&self, letter: &Letter) {
        let mut boxes = self.lock();
        // Who does not keep up loses the box, and finds out by that.
        let put = |of_node: &mut Vec<mpsc::Sender<Letter>>| {
            of_node.retain(|one| one.try_send(letter.clone()).is_ok());
        };
        let some = match letter {
            Letter::Commit(_, concerns) => concerns.hosts(),
            Letter::StartOver(_) => None,
        };
        let Some(hosts) = some else {
            boxes.retain(|_, of_node| {
                put(of_node);
                !of_node.is_empty()
            });
            return;
        };
        for host in hosts {
            if let Some(of_node) = boxes.get_mut(host) {
                put(of_node);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Vec<mpsc::Sender<Letter>>>> {
        // Each step leaves the boxes whole.
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// Waits for the next letter with news.
    pub async fn next(&mut self) -> Letter {
        loop {
            let letter = self.letters.recv().await.unwrap_or_else(|| {
                let (tables, again) = self.post.open(&self.store, &self.node);
                *self = again;
                // News in any case.
                self.index = 0;
                Letter::StartOver(tables)
            });
            let index = match &letter {
                Letter::Commit(commit, _) => commit.index,
                Letter::StartOver(tables) => tables.index(),
            };
            if index > self.index {
                self.index = index;
                return letter;
            }
        }
    }
}

impl Letter {
    /// The state to go on from.
    pub fn tables(&self) -> &Tables {
        match self {
            Self::Commit(commit, _) => &commit.tables,
            Self::StartOver(tables) => tables,
        }
    }

    /// The changes that the node has to look at; their order is not kept.
    pub fn changes<'a>(
        &'a self,
        node: &'a NodeId,
    ) -> impl Iterator<Item = &'a StoreChange> + Clone {
        let commit = match self {
            Self::Commit(commit, concerns) => Some((commit, concerns)),
            Self::StartOver(_) => None,
        };
        commit
            .into_iter()
            .flat_map(move |(commit, concerns)| concerns.pick(&commit.changes, node))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        example::{cluster_record, node, set_node},
        store::{Proposal, StoreWriter},
    };

    fn commit(store: &Store, changes: Vec<StoreChange>) {
        let proposal = Proposal {
            changes,
            ..Proposal::default()
        };
        store.apply(store.view().index() + 1, proposal);
    }

    fn relabelled(name: &str, number: usize) -> StoreChange {
        let mut node = node(name);
        node.spec.labels.insert("number".into(), number.to_string());
        set_node(node)
    }

    /// Lets the post carry what was committed.
    async fn carried() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Two nodes, and a post that runs until the test ends.
    async fn running() -> (Store, StoreWriter, Arc<Post>) {
        let (store, writer) = Store::new();
        commit(&store, vec![set_node(node("n1")), set_node(node("n2"))]);
        let post = Arc::new(Post::default());
        tokio::spawn(Arc::clone(&post).run(&store));
        carried().await;
        (store, writer, post)
    }

    #[tokio::test]
    async fn a_commit_wakes_whom_it_concerns() {
        let (store, _writer, post) = running().await;
        let ((_, mut one), (_, mut two)) = (
            post.open(&store, &"n1".into()),
            post.open(&store, &"n2".into()),
        );
        commit(&store, vec![relabelled("n1", 1)]);
        let letter = one.next().await;
        assert_eq!(letter.changes(&"n1".into()).count(), 1);
        assert!(two.next().now_or_never().is_none());
        let everybody = StoreChange::SetCluster(Box::new(cluster_record()));
        commit(&store, vec![everybody, relabelled("n1", 2)]);
        let (for_one, for_two) = (one.next().await, two.next().await);
        assert_eq!(for_one.changes(&"n1".into()).count(), 2);
        assert_eq!(for_two.changes(&"n2".into()).count(), 1);
    }

    #[tokio::test]
    async fn who_is_too_slow_starts_over_and_misses_nothing() {
        let (store, _writer, post) = running().await;
        let (_, mut slow) = post.open(&store, &"n1".into());
        for number in 0..=DEPTH {
            commit(&store, vec![relabelled("n1", number)]);
            carried().await;
        }
        let mut seen = 0;
        let again = loop {
            match slow.next().await {
                Letter::Commit(..) => seen += 1,
                Letter::StartOver(tables) => break tables,
            }
        };
        assert_eq!(seen, DEPTH);
        assert_eq!(again.index(), store.view().index());
        commit(&store, vec![relabelled("n1", 0)]);
        assert!(matches!(slow.next().await, Letter::Commit(..)));
    }

    #[tokio::test]
    async fn what_comes_while_a_box_is_opened_comes_once() {
        let (store, _writer) = Store::new();
        commit(&store, vec![set_node(node("n1"))]);
        let post = Arc::new(Post::default());
        // The post is late: the commit is in the state that the session begins with, and under way.
        let late = Arc::clone(&post).run(&store);
        tokio::pin!(late);
        assert!(late.as_mut().now_or_never().is_none());
        commit(&store, vec![relabelled("n1", 1)]);
        let (tables, mut mailbox) = post.open(&store, &"n1".into());
        assert!(late.as_mut().now_or_never().is_none());
        assert_eq!(tables.index(), 2);
        assert!(mailbox.next().now_or_never().is_none());
        commit(&store, vec![relabelled("n1", 2)]);
        assert!(late.as_mut().now_or_never().is_none());
        let Some(Letter::Commit(commit, _)) = mailbox.next().now_or_never() else {
            panic!("no letter");
        };
        assert_eq!(commit.index, 3);
    }
}
