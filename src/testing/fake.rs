//! Fakes: activities of apps that are not there in a test.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::world::World;
use crate::backend::WorkerInfo;
use crate::model::{Activity, AppId, Failure};
use crate::worker::{ActivityContext, RunningWorker, Worker};

/// An activity that is faked: it stands in for its app for as long as this lives. See [`World::fake`].
#[must_use = "the fake is gone when this is dropped"]
pub struct Fake<I> {
    _worker: RunningWorker,
    calls: Arc<Mutex<Vec<I>>>,
}

impl<I: Clone> Fake<I> {
    /// The inputs that it was called with, in order. A body may run more than once for a call.
    pub fn calls(&self) -> Vec<I> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl World {
    /// Fakes an activity: calls of it come to what the function gives for their input, or fail as it says.
    ///
    /// The fake is a worker of its app: where a worker of yours runs the same activity, either would get a call. So leave the activity out of the worker
    /// that you start for the app in the test, if you start one; what that one hosts besides is called as well as it ever was.
    ///
    /// ```
    /// use leveret::testing::simulate;
    /// use leveret::{Activity, Failure, Worker, Workflow, WorkflowContext};
    ///
    /// const REMIND: Activity<String, String> = Activity::new("mail", "remind");
    /// const TRIAL: Workflow<String, String> = Workflow::new("billing", "trial");
    ///
    /// let told = simulate(1, async |world| {
    ///     let mail = world.fake(REMIND, |customer: String| Ok(format!("told {customer}"))).await;
    ///     let billing = Worker::new("billing", world.process("billing").backend())
    ///         .workflow(TRIAL, async |ctx: WorkflowContext, customer: String| ctx.call(REMIND, customer).await);
    ///     let _billing = billing.start().await.unwrap();
    ///     let told = world.client().start(TRIAL, "Ada".into()).await.unwrap().result().await.unwrap();
    ///     assert_eq!(mail.calls(), ["Ada"]);
    ///     told
    /// });
    /// assert_eq!(told, "told Ada");
    /// ```
    ///
    /// # Panics
    /// If the contract's app ID or name is not valid, or a live worker of the app runs the activity itself.
    pub async fn fake<I, O>(
        &self,
        activity: Activity<I, O>,
        result: impl Fn(I) -> Result<O, Failure> + Send + Sync + 'static,
    ) -> Fake<I>
    where
        I: Clone + DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
    {
        self.expect_nobody_to_run(&activity).await;
        let calls: Arc<Mutex<Vec<I>>> = Arc::default();
        let noted = calls.clone();
        let name = format!("fake of {} on {}", activity.name(), activity.app());
        let backend = self.process(name).spared().backend();
        let worker = Worker::new(activity.app(), backend).activity(activity, move |_: ActivityContext, input: I| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(input.clone());
            std::future::ready(result(input))
        });
        let worker = worker
            .start()
            .await
            .unwrap_or_else(|error| panic!("a fake cannot be made: {error}"));
        Fake { _worker: worker, calls }
    }

    async fn expect_nobody_to_run<I, O>(&self, activity: &Activity<I, O>) {
        let Ok(app) = AppId::new(activity.app()) else { return };
        let workers = self.servers().store().workers(&app).await.unwrap_or_default();
        let runs_it = |worker: &WorkerInfo| worker.activities.iter().any(|name| name == activity.name());
        assert!(
            !workers.iter().any(runs_it),
            "a worker of app {app} runs activity `{}` itself: leave it out of that worker, so that calls come to the fake",
            activity.name()
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::simulate;
    use crate::{Activity, ActivityContext, Failure, Worker};

    const REMIND: Activity<u64, u64> = Activity::new("mail", "remind");

    #[test]
    #[should_panic(expected = "leave it out of that worker")]
    fn an_activity_that_a_worker_runs_itself_is_not_faked() {
        simulate(1, async |world| {
            let mail = Worker::new("mail", world.process("mail").backend());
            let mail = mail.activity(REMIND, async |_: ActivityContext, n: u64| Ok::<_, Failure>(n));
            let _mail = mail.start().await.expect("it starts");
            let _fake = world.fake(REMIND, Ok).await;
        });
    }
}
