//! What steps and large payloads cost, seen at the store and at the limits; scenarios 28 and 29.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use leveret::backend::{Backend, Committed, Loaded};
use leveret::{Activity, ActivityContext, Limits, Result, Settings, Worker, Workflow, WorkflowContext, kinds};

use crate::between::with_answers_seen;
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const MAKE: Activity<usize, String> = Activity::new("payments", "make");
const LARGE: usize = 20 << 20;

/// What a worker has had of the store.
#[derive(Clone, Default)]
struct Costs {
    bytes: Arc<AtomicUsize>,
    turns: Arc<AtomicUsize>,
    commits: Arc<AtomicUsize>,
}

impl Costs {
    fn counted(&self, backend: &Backend) -> Backend {
        let costs = self.clone();
        with_answers_seen(backend, move |_, answer: &dyn Any| {
            let mut loaded: &[Bytes] = &[];
            if let Some(Some(answer)) = answer.downcast_ref::<Option<Loaded>>() {
                loaded = &answer.turns;
            } else if let Some(turns) = answer.downcast_ref::<Vec<Bytes>>() {
                loaded = turns;
            } else if answer.is::<Committed>() {
                costs.commits.fetch_add(1, Ordering::Relaxed);
            }
            costs.turns.fetch_add(loaded.len(), Ordering::Relaxed);
            let bytes: usize = loaded.iter().map(Bytes::len).sum();
            costs.bytes.fetch_add(bytes, Ordering::Relaxed);
        })
    }

    /// Bytes of turns, turns, commits so far.
    fn so_far(&self) -> [usize; 3] {
        [&self.bytes, &self.turns, &self.commits].map(|count| count.load(Ordering::Relaxed))
    }
}

pub(crate) async fn the_last_step_costs_what_the_first_did(h: &impl Harness) {
    // Steps whose costs are taken together, at the beginning and at the end.
    const SOME: u64 = 50;
    let steps = size(100_000, 400);
    let stage = Stage::new(h).await;
    let costs = Costs::default();
    let at: Arc<std::sync::Mutex<Vec<[usize; 3]>>> = Arc::default();
    let work = async |(costs, at): (Costs, Arc<std::sync::Mutex<Vec<[usize; 3]>>>), _: ActivityContext, n: u64| {
        at.lock().unwrap().push(costs.so_far());
        ok(n)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((costs.clone(), at.clone()), work)))
    .await;
    let orders = Worker::new("orders", costs.counted(&stage.backend)).settings(settings());
    let _orders = up(orders.workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        let mut sum = 0;
        for step in 0..n {
            sum += ctx.call(WORK, step).await?;
        }
        ok(sum)
    }))
    .await;
    let run = stage.client.start(MAIN, steps).id("one").await.unwrap();
    assert_eq!(done_within(&run, PATIENCE * 30).await, (0..steps).sum::<u64>());
    let at = at.lock().unwrap().clone();
    assert_eq!(at.len(), steps as usize);
    let of = |from: usize| -> [usize; 3] {
        let to = from + SOME as usize;
        std::array::from_fn(|cost| at[to][cost] - at[from][cost])
    };
    let (early, late) = (of(1), of(steps as usize - SOME as usize - 1));
    // Checks look at the instance now and then, whatever its steps do.
    const CHECKS: [usize; 3] = [16 << 10, 20, 5];
    for ((what, early), (late, checks)) in ["bytes loaded", "turns loaded", "commits"]
        .into_iter()
        .zip(early)
        .zip(late.into_iter().zip(CHECKS))
    {
        assert!(
            late <= early + checks,
            "{what}: {early} by {SOME} steps at the beginning and {late} at the end"
        );
    }
}

fn taking(payload_bytes: usize) -> Settings {
    let limits = Limits {
        payload_bytes,
        ..Limits::default()
    };
    Settings { limits, ..settings() }
}

async fn make(_: ActivityContext, size: usize) -> Result<String> {
    Ok("x".repeat(size))
}

/// Calls for something large, and then for something small: what each came to.
async fn large_and_small(ctx: WorkflowContext, (): ()) -> Result<(String, usize, usize)> {
    let large = ctx.call(MAKE, LARGE).await;
    let small = ctx.call(MAKE, 10).await?.len();
    Ok(match large {
        Ok(text) => (String::new(), text.len(), small),
        Err(failure) => {
            assert_eq!(failure.kind, kinds::PAYLOAD_TOO_LARGE);
            (failure.message, 0, small)
        }
    })
}

const SIZES: Workflow<(), (String, usize, usize)> = Workflow::new("orders", "sizes");

pub(crate) async fn a_result_of_20_mib_fails_its_call_and_names_the_limit(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").activity(MAKE, make)).await;
    let _orders = up(stage.worker("orders").workflow(SIZES, large_and_small)).await;
    let run = stage.client.start(SIZES, ()).await.unwrap();
    let (message, large, small) = done(&run).await;
    assert_eq!((large, small), (0, 10));
    for part in [&LARGE.to_string()[..3], "8388608", "LEVERET_PAYLOAD_BYTES"] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

pub(crate) async fn a_result_of_20_mib_is_carried_if_the_limit_is_raised(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").settings(taking(32 << 20)).activity(MAKE, make)).await;
    let _orders = up(stage
        .worker("orders")
        .settings(taking(32 << 20))
        .workflow(SIZES, large_and_small))
    .await;
    let run = stage.client.start(SIZES, ()).await.unwrap();
    assert_eq!(done(&run).await, (String::new(), LARGE, 10));
}
