//! Bodies of requests that are refused before they are read. Who is still sending when the
//! connection ends sees a broken pipe in place of the reason; so a little more is taken first.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::header::UPGRADE,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

/// How much more is taken, and for how long: enough for a client that has all of it ready.
const MOST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_millis(500);

/// What the handler has not read of a body.
#[derive(Clone)]
pub struct Unread(Arc<Mutex<BodyDataStream>>);

impl Unread {
    /// Keeps hold of the request's body; none where it is no body but the client's half of a
    /// connection.
    pub fn keep(request: &mut Request) -> Option<Self> {
        if request.headers().contains_key(UPGRADE) {
            return None;
        }
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let unread = Self(Arc::new(Mutex::new(body.into_data_stream())));
        *request.body_mut() = Body::from_stream(unread.clone());
        Some(unread)
    }

    /// Reads on and throws away.
    pub async fn drain(mut self) {
        let all = async {
            let mut taken = 0;
            while let Some(Ok(part)) = self.next().await {
                taken += part.len();
                if taken > MOST {
                    return;
                }
            }
        };
        // Who takes longer has his connection ended.
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rest_of_a_body_is_taken_and_not_more_than_a_little() {
        let part = || Ok::<_, axum::Error>(Bytes::from_static(&[0; 1024]));
        for (parts, left) in [(10, 0), (5_000, 5_000 - 1 - (MOST / 1024 + 1))] {
            let stream = futures_util::stream::iter((0..parts).map(move |_| part()));
            let mut request = Request::new(Body::from_stream(stream));
            let unread = Unread::keep(&mut request).unwrap();
            let mut handler = request.into_body().into_data_stream();
            assert_eq!(handler.next().await.unwrap().unwrap().len(), 1024);
            unread.clone().drain().await;
            assert_eq!(unread.count().await, left);
        }
    }
}
