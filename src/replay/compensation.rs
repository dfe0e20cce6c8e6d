//! Undo steps, registered as one goes and run in reverse on failure.

use std::future::Future;
use std::pin::Pin;

use crate::model::{Failure, Result};

type Step = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Undo steps of a workflow (a saga): register one after each step that would have to be undone; on failure run them, the last first.
///
/// ```no_run
/// use leveret::{Activity, Compensations, Result, WorkflowContext};
/// const CHARGE: Activity<u64, String> = Activity::new("payments", "charge");
/// const REFUND: Activity<String, ()> = Activity::new("payments", "refund");
/// const SHIP: Activity<u64, ()> = Activity::new("shipping", "ship");
///
/// async fn order(ctx: WorkflowContext, amount: u64) -> Result<()> {
///     let mut undo = Compensations::new();
///     let receipt = ctx.call(CHARGE, amount).await?;
///     undo.push(ctx.call(REFUND, receipt));
///     match ctx.call(SHIP, amount).await {
///         Ok(()) => Ok(()),
///         Err(failure) => Err(undo.run(failure).await),
///     }
/// }
/// ```
#[derive(Default)]
pub struct Compensations {
    steps: Vec<Step>,
}

impl Compensations {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an undo step: a call with its options, not awaited. It is scheduled only if it is needed; its output is not looked at.
    pub fn push<F, O>(&mut self, step: F)
    where
        F: IntoFuture<Output = Result<O>>,
        F::IntoFuture: Send + 'static,
    {
        let step = step.into_future();
        self.steps.push(Box::pin(async move { step.await.map(drop) }));
    }

    /// How many steps are registered.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// True if no step is registered.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Undoes: runs the steps one after the other, the last first. A step that fails does not keep the others from running.
    ///
    /// Gives the failure back, to be returned from the workflow. If steps failed, the message says how many and the first of them stands at the end of
    /// the chain of causes.
    pub async fn run(self, failure: Failure) -> Failure {
        let mut failed = Vec::new();
        for step in self.steps.into_iter().rev() {
            failed.extend(step.await.err());
        }
        let count = failed.len();
        let Some(first) = failed.into_iter().next() else {
            return failure;
        };
        let mut failure = failure;
        failure.message = format!("{} (and {count} undo step(s) failed)", failure.message);
        attach(&mut failure, first);
        failure
    }
}

/// Puts a cause at the end of the chain.
fn attach(failure: &mut Failure, cause: Failure) {
    match &mut failure.cause {
        Some(next) => attach(next, cause),
        none => *none = Some(Box::new(cause)),
    }
}
