//! A store that a test stands in front of: each call is announced to the test before it is made, and waits until the test lets it pass. So a worker
//! meets just the moment that the test is about: a start between two looks, a server that does not answer, a process that is frozen.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use leveret::backend::{
    App, Backend, Broker, Browse, Claim, ClaimVerdict, Clock, Commit, Committed, Consumer, Create, Created, Deleted,
    Deliver, Delivered, DueEntry, DueKey, DueKind, DueOutcome, DuePage, Ending, Error, IndexFilter, IndexPage, Loaded,
    Mark, Message, Progress, Queue, QueueDepth, Record, Result, Store, Stray, Survey, Watch, When, WorkerInfo,
};
use leveret::wire::Outcome;
use leveret::{AppId, ExecutionId, InstanceRef, MessageId, RunId, RunToken, Sequence, Timestamp, WorkerId};

use crate::harness::Gate;

/// A call, before it is made.
pub(crate) struct Call {
    pub(crate) method: &'static str,
    /// Named by those that a test has asked about.
    pub(crate) instance: Option<InstanceRef>,
}

type Pass = Box<dyn Fn(Call) -> BoxFuture<'static, Result<()>> + Send + Sync>;
type See = Box<dyn Fn(&'static str, &dyn Any) + Send + Sync>;

struct Between {
    store: Arc<dyn Store>,
    pass: Pass,
    /// Outcomes of past runs are kept no longer.
    has_forgotten: bool,
    see: See,
}

/// The same backend, for one worker or client; each of its calls to the store is made when `pass` has ended.
pub(crate) fn with_store_behind(
    backend: &Backend,
    pass: impl Fn(Call) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> Backend {
    with_failing_store(backend, move |call| {
        let passed = pass(call);
        Box::pin(async move {
            passed.await;
            Ok(())
        })
    })
}

/// The same with a `pass` that may refuse a call: it is not made then.
pub(crate) fn with_failing_store(
    backend: &Backend,
    pass: impl Fn(Call) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
) -> Backend {
    in_front_of(backend, Box::new(pass), Box::new(|_, _| {}), false)
}

/// The same backend; some calls are refused for good, as by a store that holds what this release cannot read.
pub(crate) fn with_store_that_refuses(
    backend: &Backend,
    refuses: impl Fn(&Call) -> bool + Send + Sync + 'static,
) -> Backend {
    with_failing_store(backend, move |call| {
        let refused = refuses(&call).then(|| Error::permanent("it was written by a later release"));
        Box::pin(std::future::ready(refused.map_or(Ok(()), Err)))
    })
}

/// The same backend, long after the last run was replaced or deleted.
pub(crate) fn with_store_that_forgets_outcomes(backend: &Backend) -> Backend {
    let pass = Box::new(|_| Box::pin(std::future::ready(Ok(()))) as BoxFuture<'static, Result<()>>);
    in_front_of(backend, pass, Box::new(|_, _| {}), true)
}

/// The same backend, for one worker or client; each answer of the store is shown to `see`, with the name of the method.
pub(crate) fn with_answers_seen(
    backend: &Backend,
    see: impl Fn(&'static str, &dyn Any) + Send + Sync + 'static,
) -> Backend {
    in_front_of(backend, Box::new(|_| Box::pin(async { Ok(()) })), Box::new(see), false)
}

fn in_front_of(backend: &Backend, pass: Pass, see: See, has_forgotten: bool) -> Backend {
    let store = Between {
        store: backend.store().clone(),
        pass,
        has_forgotten,
        see,
    };
    Backend::new(
        backend.namespace().clone(),
        backend.broker().clone(),
        Arc::new(store),
        backend.clock().clone(),
        format!("{backend}, with a test in between"),
    )
}

/// The same backend with a clock on which long waits begin only when the gate is open: until then nothing is too late.
pub(crate) fn with_long_waits_behind(backend: &Backend, gate: Gate) -> Backend {
    struct Held {
        clock: Arc<dyn Clock>,
        gate: Gate,
    }

    #[async_trait::async_trait]
    impl Clock for Held {
        fn now(&self) -> Timestamp {
            self.clock.now()
        }

        async fn sleep(&self, duration: Duration) {
            if duration >= Duration::from_secs(1) {
                self.gate.pass().await;
            }
            self.clock.sleep(duration).await;
        }
    }

    let clock = Held {
        clock: backend.clock().clone(),
        gate,
    };
    Backend::new(
        backend.namespace().clone(),
        backend.broker().clone(),
        backend.store().clone(),
        Arc::new(clock),
        format!("{backend}, with a test at its clock"),
    )
}

/// The same backend, with a `pass` that each message to be published has to pass.
pub(crate) fn with_publisher_behind(
    backend: &Backend,
    pass: impl Fn(&Message) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
) -> Backend {
    struct Publisher<P> {
        broker: Arc<dyn Broker>,
        pass: P,
    }

    #[async_trait::async_trait]
    impl<P> Broker for Publisher<P>
    where
        P: Fn(&Message) -> BoxFuture<'static, Result<()>> + Send + Sync,
    {
        async fn publish(&self, message: Message) -> Result<()> {
            let passed = (self.pass)(&message);
            passed.await?;
            self.broker.publish(message).await
        }

        async fn declare(&self, app: &AppId, lanes: u16) -> Result<()> {
            self.broker.declare(app, lanes).await
        }

        async fn consume(&self, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>> {
            self.broker.consume(queue, prefetch).await
        }

        async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browse>> {
            self.broker.browse(queue).await
        }

        async fn depth(&self, queue: &Queue) -> Result<Option<QueueDepth>> {
            self.broker.depth(queue).await
        }

        async fn remove(&self, app: &AppId, lanes: u16) -> Result<()> {
            self.broker.remove(app, lanes).await
        }

        fn readiness(&self) -> std::result::Result<(), String> {
            self.broker.readiness()
        }
    }

    let broker = backend.broker().clone();
    Backend::new(
        backend.namespace().clone(),
        Arc::new(Publisher { broker, pass }),
        backend.store().clone(),
        backend.clock().clone(),
        format!("{backend}, with a test at its publisher"),
    )
}

macro_rules! pass_on {
    ($($method:ident($($argument:ident: $type:ty),*) -> $answer:ty $(, of $instance:expr)? $(, unless $flag:ident)?;)+) => {
        #[async_trait::async_trait]
        impl Store for Between {
            $(async fn $method(&self, $($argument: $type),*) -> Result<$answer> {
                let instance = None::<&InstanceRef>$(.or(Some($instance)))?;
                let call = Call { method: stringify!($method), instance: instance.cloned() };
                (self.pass)(call).await?;
                $(if self.$flag { return Ok(Default::default()); })?
                let answer = self.store.$method($($argument),*).await;
                if let Ok(answer) = &answer {
                    (self.see)(stringify!($method), answer);
                }
                answer
            })+

            fn listen(&self, instance: &InstanceRef) -> Option<Box<dyn Watch>> {
                self.store.listen(instance)
            }

            fn readiness(&self) -> std::result::Result<(), String> {
                self.store.readiness()
            }
        }
    };
}

pass_on! {
    create(create: &Create) -> Created, of &create.instance;
    record(instance: &InstanceRef) -> Option<Record>, of instance;
    load(instance: &InstanceRef, after: u64, inbox: usize) -> Option<Loaded>, of instance;
    inbox(instance: &InstanceRef, from: usize, most: usize) -> Vec<Bytes>, of instance;
    turns(instance: &InstanceRef, execution: ExecutionId, after: u64, count: usize) -> Vec<Bytes>, of instance;
    commit(commit: &Commit) -> Committed, of &commit.instance;
    clear_mark(instance: &InstanceRef, execution: ExecutionId, mark: Mark) -> Option<usize>, of instance;
    clear_first_start(instance: &InstanceRef, execution: ExecutionId) -> Option<usize>, of instance;
    deliver(deliver: &Deliver) -> Delivered;
    refuse(instance: &InstanceRef, request: &MessageId, keep: Duration) -> bool, of instance;
    delete(instance: &InstanceRef, execution: ExecutionId, keep: Duration) -> Deleted, of instance;
    ending(instance: &InstanceRef) -> Option<Ending>, of instance;
    past_outcome(instance: &InstanceRef, run: RunId) -> Option<Outcome>, of instance, unless has_forgotten;
    watch(instance: &InstanceRef) -> Box<dyn Watch>, of instance;
    claim(instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> Claim, of instance;
    settle_claim(instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> ClaimVerdict, of instance;
    progress(instance: &InstanceRef, execution: ExecutionId, sequence: Sequence, is_claimed: bool, details: Option<Bytes>) -> bool, of instance;
    progress_of(instance: &InstanceRef, most: usize) -> Vec<Progress>, of instance;
    schedule(app: &AppId, entries: &[DueEntry], when: When) -> ();
    unschedule(app: &AppId, keys: &[DueKey]) -> bool;
    claim_due(app: &AppId, most: usize, lease: Duration) -> Vec<DueEntry>;
    settle_due(app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> ();
    due_entry(app: &AppId, key: &DueKey) -> Option<DueEntry>;
    due_entries(app: &AppId, kind: DueKind, most: usize) -> Vec<DueEntry>;
    due_page(app: &AppId, after: Option<&str>, most: usize) -> DuePage;
    survey(after: Option<&str>, most: usize) -> Survey;
    stray(stray: &Stray, remove: bool) -> bool;
    runs(app: &AppId, item: &MessageId) -> u32;
    begin_run(app: &AppId, item: &MessageId, token: RunToken) -> u32;
    end_run(app: &AppId, item: &MessageId) -> ();
    index(instance: &InstanceRef, record: &Record) -> (), of instance;
    unindex(instance: &InstanceRef) -> (), of instance;
    list(filter: &IndexFilter, after: Option<&str>, most: usize) -> IndexPage;
    adopt_app(app: &AppId, lanes: u16) -> u16;
    app(app: &AppId) -> Option<App>;
    apps() -> Vec<App>;
    remove_app(app: &AppId) -> ();
    beat(worker: &WorkerInfo, ttl: Duration) -> ();
    leave(app: &AppId, worker: WorkerId) -> ();
    workers(app: &AppId) -> Vec<WorkerInfo>;
    now() -> Timestamp;
    warnings() -> Vec<String>;
}
