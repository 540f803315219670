//! Images for tasks: pulled first, as Docker does, and once for all tasks that start together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use model::Refusal;
use runtime::images::{ImageStore, Progress, Reference};
use tokio::sync::OnceCell;

use crate::registry_auth;

/// For how long one pull's outcome answers for the tasks that want the same image.
const FRESH: Duration = Duration::from_secs(5);

pub(super) struct Pulls {
    store: ImageStore,
    /// By image and credentials.
    recent: Mutex<HashMap<(String, String), Recent>>,
}

#[derive(Clone)]
struct Recent {
    begun: Instant,
    outcome: Arc<OnceCell<Result<(), Refusal>>>,
}

impl Pulls {
    pub(super) fn new(store: ImageStore) -> Self {
        Self {
            store,
            recent: Mutex::default(),
        }
    }

    /// Sees to it that the image is here. A failed pull is no failure while an image of that
    /// name is on this host. Cancel-safe.
    pub(super) async fn ensure(&self, image: &str, registry_auth: &str) -> Result<(), Refusal> {
        let reference: Reference = image.parse()?;
        // What a digest names never changes.
        if reference.digest().is_some() && self.store.resolve(image).is_ok() {
            return Ok(());
        }
        let recent = self.recent(image, registry_auth);
        let pulled = recent
            .outcome
            .get_or_init(|| self.pull(&reference, registry_auth))
            .await;
        match pulled {
            Ok(()) => Ok(()),
            Err(refusal) if self.store.resolve(image).is_ok() => {
                tracing::warn!(image, %refusal, "not pulled; the image on this host is used");
                Ok(())
            }
            Err(refusal) => Err(refusal.clone()),
        }
    }

    fn recent(&self, image: &str, registry_auth: &str) -> Recent {
        let mut all = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, recent| !recent.outcome.initialized() || recent.begun.elapsed() < FRESH);
        all.entry((image.to_owned(), registry_auth.to_owned()))
            .or_insert_with(|| Recent {
                begun: Instant::now(),
                outcome: Arc::default(),
            })
            .clone()
    }

    async fn pull(&self, reference: &Reference, registry_auth: &str) -> Result<(), Refusal> {
        let auth = registry_auth::decode(registry_auth.as_bytes())?;
        let progress = Progress::none();
        let pulled = self.store.pull(reference, auth.as_ref(), &progress).await;
        pulled.map(drop)
    }
}
