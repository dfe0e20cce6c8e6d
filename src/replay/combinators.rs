//! Waiting for several things. Order is history order, so replay gives the same answer.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::handle::{Handle, Shared};
use crate::model::Result;

/// Starts all, in order, and waits for all: their results, in the same order. Cheap for tens of thousands: each result costs one look.
///
/// ```no_run
/// # use leveret::{Activity, Result, WorkflowContext, all};
/// # const RESIZE: Activity<u32, u32> = Activity::new("images", "resize");
/// # async fn example(ctx: WorkflowContext) -> Result<()> {
/// let results = all((0..100).map(|n| ctx.call(RESIZE, n))).await;
/// let sizes: Vec<u32> = results.into_iter().collect::<Result<_>>()?;
/// # Ok(()) }
/// ```
pub fn all<T, F>(calls: impl IntoIterator<Item = F>) -> All<T>
where
    F: IntoFuture<Output = Result<T>, IntoFuture = Handle<T>>,
{
    All {
        handles: calls.into_iter().map(|call| Some(call.into_future())).collect(),
        results: Vec::new(),
        group: None,
        left: 0,
    }
}

/// The future of [`all`].
#[must_use = "futures do nothing until they are awaited"]
pub struct All<T> {
    handles: Vec<Option<Handle<T>>>,
    results: Vec<Option<Result<T>>>,
    group: Option<Group>,
    left: usize,
}

/// A group of slots in the machine, and which of our handles each belongs to.
struct Group {
    machine: Shared,
    id: u64,
    positions: std::collections::HashMap<u64, usize>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.machine.lock().slots.leave_group(self.id);
    }
}

impl Group {
    fn start<T>(handles: &mut [Option<Handle<T>>]) -> Option<Self> {
        let machine = handles.first()?.as_ref()?.machine().clone();
        let id = machine.lock().slots.open_group();
        let mut positions = std::collections::HashMap::with_capacity(handles.len());
        for (position, handle) in handles.iter_mut().enumerate() {
            if let Some(slot) = handle.as_mut().and_then(Handle::begin) {
                machine.lock().slots.join_group(id, slot);
                positions.insert(slot, position);
            }
        }
        Some(Self { machine, id, positions })
    }

    fn next(&self, waker: &Waker) -> Option<usize> {
        let slot = self.machine.lock().slots.next_of_group(self.id, waker)?;
        self.positions.get(&slot).copied()
    }
}

impl<T> Unpin for All<T> {}

impl<T> Future for All<T> {
    type Output = Vec<Result<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.group.is_none() {
            this.group = Group::start(&mut this.handles);
            this.left = this.handles.len();
            this.results = this.handles.iter().map(|_| None).collect();
        }
        while let Some(position) = this.group.as_ref().and_then(|group| group.next(context.waker())) {
            poll_one(&mut this.handles, position, context, &mut this.results, &mut this.left);
        }
        if this.left > 0 {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut this.results).into_iter().flatten().collect())
    }
}

fn poll_one<T>(
    handles: &mut [Option<Handle<T>>],
    position: usize,
    context: &mut Context<'_>,
    results: &mut [Option<Result<T>>],
    left: &mut usize,
) {
    let Some(handle) = &mut handles[position] else { return };
    if let Poll::Ready(result) = Pin::new(handle).poll(context) {
        handles[position] = None;
        results[position] = Some(result);
        *left -= 1;
    }
}

/// The winner of [`first`].
#[derive(Debug)]
pub struct First<T> {
    /// Which one, counted from 0.
    pub index: usize,
    /// Its result.
    pub result: Result<T>,
}

/// Starts all, in order, and waits for the one that is over first in the history. The others are dropped: timers are cancelled, calls go on and
/// their results are ignored.
///
/// Gives `None` only if there was nothing to wait for.
pub async fn first<T, F>(calls: impl IntoIterator<Item = F>) -> Option<First<T>>
where
    F: IntoFuture<Output = Result<T>, IntoFuture = Handle<T>>,
{
    let mut handles: Vec<_> = calls.into_iter().map(IntoFuture::into_future).collect();
    for handle in &mut handles {
        handle.begin();
    }
    if handles.is_empty() {
        return None;
    }
    std::future::poll_fn(|context| {
        let earliest = (0..handles.len())
            .filter_map(|index| Some((place(&handles[index])?, index)))
            .min();
        if let Some((_, index)) = earliest
            && let Poll::Ready(result) = Pin::new(&mut handles[index]).poll(context)
        {
            return Poll::Ready(Some(First { index, result }));
        }
        for handle in &mut handles {
            // Not ready, or it would have a place in the order: this registers the waker.
            let _ = Pin::new(handle).poll(context);
        }
        Poll::Pending
    })
    .await
}

/// The winner of [`race`].
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first argument was over first.
    Left(Result<A>),
    /// The second was.
    Right(Result<B>),
}

/// Starts both, in order, and waits for the one that is over first in the history: a call against a timer, say.
pub async fn race<A, B, F, G>(left: F, right: G) -> Either<A, B>
where
    F: IntoFuture<Output = Result<A>, IntoFuture = Handle<A>>,
    G: IntoFuture<Output = Result<B>, IntoFuture = Handle<B>>,
{
    let (mut left, mut right) = (left.into_future(), right.into_future());
    left.begin();
    right.begin();
    std::future::poll_fn(|context| {
        let left_first = match (place(&left), place(&right)) {
            (Some(left), Some(right)) => left < right,
            (left, _) => left.is_some(),
        };
        // In this order a poll of the loser cannot take its result: only the winner is ready, or it is polled first.
        if left_first {
            if let Poll::Ready(result) = Pin::new(&mut left).poll(context) {
                return Poll::Ready(Either::Left(result));
            }
        } else if let Poll::Ready(result) = Pin::new(&mut right).poll(context) {
            return Poll::Ready(Either::Right(result));
        }
        let _ = Pin::new(&mut left).poll(context);
        Poll::Pending
    })
    .await
}

fn place<T>(handle: &Handle<T>) -> Option<u64> {
    handle.machine().lock().slots.place(handle.slot()?)
}
