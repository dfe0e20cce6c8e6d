//! What a worker hosts: names, and the code behind them with its types erased.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ActivityContext;
use crate::model::{Activity, Failure, Payload, Result, Workflow};
use crate::replay::{Code, CodeFuture, WorkflowContext};

pub(super) type ActivityFuture = Pin<Box<dyn Future<Output = Result<Payload>> + Send>>;

/// An activity's code.
pub(super) trait ActivityCode: Send + Sync {
    fn begin(&self, ctx: ActivityContext, input: Payload) -> ActivityFuture;
}

struct Typed<F>(F);

impl<F> Code for Typed<F>
where
    F: Fn(WorkflowContext, Payload) -> CodeFuture + Send + Sync,
{
    fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture {
        (self.0)(ctx, input)
    }
}

impl<F> ActivityCode for Typed<F>
where
    F: Fn(ActivityContext, Payload) -> ActivityFuture + Send + Sync,
{
    fn begin(&self, ctx: ActivityContext, input: Payload) -> ActivityFuture {
        (self.0)(ctx, input)
    }
}

/// See the module. What is wrong with a registration is kept until the worker starts, and named then, all at once.
#[derive(Default)]
pub(super) struct Registry {
    workflows: BTreeMap<String, Arc<dyn Code>>,
    activities: BTreeMap<String, Arc<dyn ActivityCode>>,
    problems: Vec<String>,
}

impl Registry {
    pub(super) fn workflow<I, O, E, F, Fut>(&mut self, app: &str, contract: Workflow<I, O>, code: F)
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Into<Failure> + 'static,
        F: Fn(WorkflowContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
    {
        if !self.check(
            "workflow",
            app,
            contract.app(),
            contract.name(),
            self.workflows.contains_key(contract.name()),
        ) {
            return;
        }
        let code = Typed(move |ctx: WorkflowContext, input: Payload| -> CodeFuture {
            let running = input.decode::<I>().map(|input| code(ctx, input));
            Box::pin(async move { Payload::encode(&running?.await.map_err(Into::into)?) })
        });
        self.workflows.insert(contract.name().to_owned(), Arc::new(code));
    }

    pub(super) fn activity<I, O, E, F, Fut>(&mut self, app: &str, contract: Activity<I, O>, code: F)
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Into<Failure> + 'static,
        F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
    {
        if !self.check(
            "activity",
            app,
            contract.app(),
            contract.name(),
            self.activities.contains_key(contract.name()),
        ) {
            return;
        }
        let code = Typed(move |ctx: ActivityContext, input: Payload| -> ActivityFuture {
            let running = input.decode::<I>().map(|input| code(ctx, input));
            Box::pin(async move { Payload::encode(&running?.await.map_err(Into::into)?) })
        });
        self.activities.insert(contract.name().to_owned(), Arc::new(code));
    }

    fn check(&mut self, what: &str, own: &str, app: &str, name: &str, is_taken: bool) -> bool {
        let problem = if app != own {
            format!("{what} `{name}` belongs to app `{app}` by its contract and cannot be hosted by `{own}`")
        } else if is_taken {
            format!("{what} `{name}` is registered twice")
        } else if name.is_empty() || name.len() > 255 {
            format!("{what} name {name:?} has {} bytes: it needs 1 to 255", name.len())
        } else {
            return true;
        };
        self.problems.push(problem);
        false
    }

    /// All that is wrong, in one line.
    pub(super) fn problem(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    pub(super) fn find_workflow(&self, name: &str) -> Option<&Arc<dyn Code>> {
        self.workflows.get(name)
    }

    pub(super) fn find_activity(&self, name: &str) -> Option<&Arc<dyn ActivityCode>> {
        self.activities.get(name)
    }

    pub(super) fn workflow_names(&self) -> Vec<String> {
        self.workflows.keys().cloned().collect()
    }

    pub(super) fn activity_names(&self) -> Vec<String> {
        self.activities.keys().cloned().collect()
    }
}
