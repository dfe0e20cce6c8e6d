//! A workflow's code, run against its history.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use super::context::WorkflowContext;
use super::handle::Shared;
use super::history::{HistoryEvent, Refused, Turn};
use super::machine::Machine;
use super::quiet::quietly;
use crate::model::{ExecutionId, Failure, InstanceRef, Limits, Payload, Result, StallReason, Timestamp, kinds};

/// The future of a workflow's code.
pub type CodeFuture = Pin<Box<dyn Future<Output = Result<Payload>> + Send>>;

/// Something that can run a workflow.
pub trait Code: Send + Sync {
    /// Begins the workflow. Its own code runs only when the future is polled.
    fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture;
}

/// Why code cannot go on. Nothing is lost: the instance stalls, and fitting code lets it go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Stuck {
    /// Which sort of reason.
    pub reason: StallReason,
    /// For a person: both sides, and the way out.
    pub message: String,
}

/// One execution in memory: the code's future and the machine behind it.
pub struct Execution {
    shared: Shared,
    code: Arc<dyn Code>,
    future: Option<Running>,
    is_over: bool,
    waker: Arc<TurnWaker>,
}

/// Code that runs. It is begun when it is polled: what runs in `begin` may panic and log like the rest of the code.
struct Running {
    start: Option<(Arc<dyn Code>, WorkflowContext, Payload)>,
    future: Option<CodeFuture>,
}

impl Running {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Payload, Failure>> {
        if let Some((code, ctx, input)) = self.start.take() {
            self.future = Some(code.begin(ctx, input));
        }
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            // It has panicked in `begin`, and is not asked again.
            None => Poll::Pending,
        }
    }

    /// Bytes of the code's future.
    fn size(&self) -> usize {
        self.future.as_ref().map_or(0, |future| size_of_val(&**future))
    }
}

impl Execution {
    /// An execution that nothing has happened to.
    pub fn new(instance: InstanceRef, execution: ExecutionId, code: Arc<dyn Code>, limits: &Limits) -> Self {
        let machine = Machine::new(instance, execution, limits.payload_bytes, limits.dedup_window);
        Self {
            shared: Shared::new(machine),
            code,
            future: None,
            is_over: false,
            waker: Arc::default(),
        }
    }

    /// Applies a stored turn and compares what the code decides with what it had decided.
    ///
    /// # Errors
    /// [`Stuck`] names both sides of the first difference. The execution is of no further use then.
    pub fn replay(&mut self, turn: &Turn) -> Result<(), Stuck> {
        {
            let mut machine = self.shared.lock();
            machine.is_replaying = true;
            machine.now = turn.at;
            machine.answers.learn(&turn.events);
        }
        for event in &turn.events {
            if turn.build.is_none()
                && matches!(
                    event,
                    HistoryEvent::ExecutionTerminated { .. } | HistoryEvent::ExecutionFailed { .. }
                )
            {
                // It was ended by its history alone, as no code ran: what the code asks for now was never decided.
                self.is_over = true;
                self.drop_code();
                self.shared.lock().decided.clear();
                return Ok(());
            }
            if event.is_arrived() {
                if let Some(extra) = self.shared.lock().decided.front() {
                    return Err(self.differs(turn, &event.describe(), &extra.describe()));
                }
                self.happen(&mut event.clone())?;
                continue;
            }
            let asked = self.shared.lock().decided.pop_front();
            match asked {
                Some(asked) if asked.same_decision(event) => self.shared.lock().confirm(event),
                asked => {
                    return Err(self.differs(
                        turn,
                        &event.describe(),
                        &asked.map_or("nothing".into(), |asked| asked.describe()),
                    ));
                }
            }
        }
        if let Some(extra) = self.shared.lock().decided.front() {
            return Err(self.differs(turn, "nothing more", &extra.describe()));
        }
        Ok(())
    }

    /// Begins a turn that is not stored yet.
    ///
    /// # Errors
    /// [`Stuck`] if the code was woken by a future that is not Leveret's.
    pub fn begin_turn(&mut self, at: Timestamp) -> Result<(), Stuck> {
        if self.waker.woken_outside.load(Ordering::Acquire) {
            return Err(self.foreign());
        }
        let mut machine = self.shared.lock();
        machine.is_replaying = false;
        machine.now = at;
        Ok(())
    }

    /// Applies a new event, runs the code to where it blocks, and appends both the event and the code's decisions to `events`. Does nothing once the
    /// execution is over.
    ///
    /// # Errors
    /// [`Stuck`] if the code waits for something that no event can bring. The execution is of no further use then.
    pub fn advance(&mut self, mut event: HistoryEvent, events: &mut Vec<HistoryEvent>) -> Result<(), Stuck> {
        if self.is_over {
            return Ok(());
        }
        self.happen(&mut event)?;
        events.push(event);
        events.extend(self.shared.lock().decided.drain(..));
        Ok(())
    }

    /// True once the code has ended, or was ended.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The workflow's own status.
    pub fn custom_status(&self) -> Option<Payload> {
        self.shared.lock().custom_status.clone()
    }

    /// Rough size in memory, in bytes.
    pub fn weight(&self) -> usize {
        let future = self.future.as_ref().map_or(0, Running::size);
        future + self.shared.lock().weight()
    }

    /// How often code has looked at something that it waits on.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.shared.lock().slots.looks
    }

    pub(super) fn machine(&self) -> &Shared {
        &self.shared
    }

    /// Lets the event happen to the code. A termination is told which children end with it.
    fn happen(&mut self, event: &mut HistoryEvent) -> Result<(), Stuck> {
        if let HistoryEvent::ExecutionTerminated {
            children, recursive, ..
        } = event
        {
            self.is_over = true;
            self.drop_code();
            let open = self.shared.lock().wind_up();
            if *recursive {
                *children = open;
            }
            return Ok(());
        }
        self.waker.enter();
        let wakers = {
            let mut machine = self.shared.lock();
            machine.apply(event);
            machine.slots.take_wakers()
        };
        if let HistoryEvent::ExecutionStarted { input, .. } = event {
            let (code, input) = (self.code.clone(), input.clone());
            let ctx = WorkflowContext::new(self.shared.clone());
            self.future = Some(Running {
                start: Some((code, ctx, input)),
                future: None,
            });
        }
        wakers.into_iter().for_each(Waker::wake);
        let result = self.run();
        self.waker.leave();
        if self.waker.woken_outside.load(Ordering::Acquire) {
            return Err(self.foreign());
        }
        result
    }

    /// Polls the code to where it blocks.
    fn run(&mut self) -> Result<(), Stuck> {
        for _ in 0..MOST_POLLS {
            self.waker.woken.store(false, Ordering::Release);
            let Some(polled) = self.poll() else { return Ok(()) };
            let result = match polled {
                Ok(Poll::Pending) => {
                    // Code can fill what other code waits on: an event goes from a wait that was dropped to the next.
                    let wakers = self.shared.lock().slots.take_wakers();
                    wakers.into_iter().for_each(Waker::wake);
                    if self.waker.woken.load(Ordering::Acquire) {
                        continue;
                    }
                    return if self.shared.lock().slots.is_waiting() {
                        Ok(())
                    } else {
                        Err(self.foreign())
                    };
                }
                Ok(Poll::Ready(result)) => result,
                Err(panic) => {
                    self.shared.lock().continue_as_new = None;
                    let message = format!("the workflow panicked: {}", panic_text(panic.as_ref()));
                    Err(Failure::new(kinds::PANIC, message).fatal())
                }
            };
            self.drop_code();
            self.is_over = true;
            self.end(result);
            return Ok(());
        }
        Err(self.foreign())
    }

    fn poll(&mut self) -> Option<std::thread::Result<Poll<Result<Payload>>>> {
        let future = self.future.as_mut()?;
        let waker = Waker::from(self.waker.clone());
        let mut context = Context::from_waker(&waker);
        let mut poll = || catch_unwind(AssertUnwindSafe(|| future.poll(&mut context)));
        let is_replaying = self.shared.lock().is_replaying;
        Some(if is_replaying { quietly(poll) } else { poll() })
    }

    fn end(&mut self, result: Result<Payload>) {
        let mut machine = self.shared.lock();
        machine.wind_up();
        let ending = match (machine.continue_as_new.take(), result) {
            (Some(input), _) => {
                let (carried, seen) = machine.carry();
                HistoryEvent::ContinuedAsNew { input, carried, seen }
            }
            (None, Ok(output)) => match machine.refusal(Refused::Output, &output) {
                Some(failure) => HistoryEvent::ExecutionFailed {
                    failure: failure.at(&machine.identity.instance.app),
                },
                None => HistoryEvent::ExecutionCompleted { output },
            },
            // No matter for replay: that the code failed is its decision, not what is kept of it.
            (None, Err(failure)) => HistoryEvent::ExecutionFailed {
                failure: failure
                    .at(&machine.identity.instance.app)
                    .bounded(machine.payload_limit),
            },
        };
        machine.decided.push_back(ending);
    }

    /// Drops the code's future; what goes away with it is no decision of the code.
    fn drop_code(&mut self) {
        self.shared.lock().is_closed = true;
        // A destructor in user code may panic; the workflow is over either way.
        let future = self.future.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
    }

    fn differs(&self, turn: &Turn, recorded: &str, asked: &str) -> Stuck {
        let message = format!(
            "in turn {} the history has {recorded}, the code asked for {asked}; did the workflow change? Run the code that wrote the history, or guard the change with `ctx.patched(..)`",
            turn.version
        );
        Stuck {
            reason: StallReason::Nondeterminism,
            message,
        }
    }

    fn foreign(&self) -> Stuck {
        let message = "the workflow waits on a future that is not Leveret's (a tokio sleep, a channel, I/O), which replay cannot repeat; \
                       use `ctx.timer` for time, `ctx.event` for signals and an activity (`ctx.call`) for I/O"
            .into();
        Stuck {
            reason: StallReason::ForeignFuture,
            message,
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.drop_code();
    }
}

/// What a panic said, as far as it can be known.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".into())
}

/// How often code that wakes itself (`FuturesUnordered` does, to yield) is polled for one event.
const MOST_POLLS: usize = 10_000;

/// Tells a wake by the turn itself from one by somebody else: at another time, or from another thread.
#[derive(Default)]
struct TurnWaker {
    /// The thread that runs a turn.
    turn: Mutex<Option<ThreadId>>,
    /// Woken by the turn since the last poll.
    woken: AtomicBool,
    woken_outside: AtomicBool,
}

impl TurnWaker {
    fn enter(&self) {
        *self.lock() = Some(std::thread::current().id());
    }

    fn leave(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_turn = *self.lock() == Some(std::thread::current().id());
        let flag = if is_turn { &self.woken } else { &self.woken_outside };
        flag.store(true, Ordering::Release);
    }
}
