//! Streams of log items made one, in the order of their times.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream::BoxStream};
use model::log::{LogItem, LogLine};
use tokio::time::{Instant, Sleep};

/// How long a stream that has just said something is waited for, in case it has an older line.
pub const WINDOW: Duration = Duration::from_millis(100);

/// What a lane says; nothing is a sign of life.
pub type Said = Option<LogItem>;

/// One stream of many. It holds one line of each, so a slow reader slows all of them.
pub struct Merge {
    lanes: Vec<Lane>,
    timer: Pin<Box<Sleep>>,
}

struct Lane {
    stream: BoxStream<'static, Said>,
    head: Option<LogLine>,
    /// Without a line it is waited for until then.
    waited_for: Instant,
    over: bool,
}

impl Merge {
    /// Each lane is waited for as long as `patience` for its first word.
    pub fn new(lanes: Vec<BoxStream<'static, Said>>, patience: Duration) -> Self {
        let lane = |stream| Lane {
            stream,
            head: None,
            waited_for: Instant::now() + patience,
            over: false,
        };
        Self {
            lanes: lanes.into_iter().map(lane).collect(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

impl Stream for Merge {
    type Item = LogItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LogItem>> {
        let this = &mut *self;
        for lane in &mut this.lanes {
            while lane.head.is_none() && !lane.over {
                match lane.stream.as_mut().poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => lane.over = true,
                    Poll::Ready(Some(said)) => {
                        lane.waited_for = Instant::now() + WINDOW;
                        match said {
                            None => {}
                            Some(LogItem::Line(line)) => lane.head = Some(line),
                            Some(away) => return Poll::Ready(Some(away)),
                        }
                    }
                }
            }
        }
        this.lanes.retain(|lane| lane.head.is_some() || !lane.over);
        if this.lanes.is_empty() {
            return Poll::Ready(None);
        }
        let now = Instant::now();
        let heads = this.lanes.iter().enumerate();
        let heads = heads.filter_map(|(n, lane)| Some((lane.head.as_ref()?.time, n)));
        let Some((_, oldest)) = heads.min() else {
            return Poll::Pending;
        };
        let silent = |lane: &&Lane| lane.head.is_none() && lane.waited_for > now;
        if let Some(until) = this.lanes.iter().filter(silent).map(|l| l.waited_for).min() {
            this.timer.as_mut().reset(until);
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Others may be waited for still.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(this.lanes[oldest].head.take().map(LogItem::Line))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn line(node: &str, time: i64) -> LogItem {
        LogItem::Line(LogLine {
            task: "t".into(),
            node: node.into(),
            time,
            stderr: false,
            data: Vec::new(),
        })
    }

    fn lane(node: &'static str, times: &[i64]) -> BoxStream<'static, Said> {
        let items: Vec<Said> = times.iter().map(|time| Some(line(node, *time))).collect();
        futures_util::stream::iter(items).boxed()
    }

    async fn times(merge: Merge) -> Vec<i64> {
        let time = async |item| match item {
            LogItem::Line(line) => Some(line.time),
            LogItem::Away { .. } => None,
        };
        merge.filter_map(time).collect().await
    }

    #[tokio::test]
    async fn lines_come_in_the_order_of_their_times() {
        let lanes = vec![
            lane("a", &[1, 4, 9]),
            lane("b", &[2, 3, 10]),
            lane("c", &[]),
        ];
        assert_eq!(times(Merge::new(lanes, WINDOW)).await, [1, 2, 3, 4, 9, 10]);
    }

    #[tokio::test]
    async fn a_silent_lane_holds_the_others_up_for_its_window_only() {
        let (sender, receiver) = mpsc::channel(4);
        let quiet = ReceiverStream::new(receiver).boxed();
        let merge = Merge::new(vec![lane("a", &[5, 6]), quiet], Duration::from_secs(5));
        let begun = Instant::now();
        let mut merge = Box::pin(merge);
        // A late lane with an older line is in time while it is waited for.
        sender.send(Some(line("b", 1))).await.unwrap();
        assert_eq!(merge.next().await, Some(line("b", 1)));
        assert_eq!(merge.next().await, Some(line("a", 5)));
        assert!(begun.elapsed() >= WINDOW && begun.elapsed() < Duration::from_secs(5));
        assert_eq!(merge.next().await, Some(line("a", 6)));
        drop(sender);
        assert_eq!(merge.next().await, None);
    }

    #[tokio::test]
    async fn who_is_away_is_named_at_once() {
        let away = LogItem::Away {
            node: "b".into(),
            reason: "it is down".into(),
        };
        let gone = futures_util::stream::iter([Some(away.clone())]).boxed();
        let mut merge = Merge::new(vec![lane("a", &[1]), gone], WINDOW);
        assert_eq!(merge.next().await, Some(away));
        assert_eq!(merge.next().await, Some(line("a", 1)));
    }
}
