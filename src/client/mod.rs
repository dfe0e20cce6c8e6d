//! The client: starts workflows on any app of the namespace, waits for them, looks at them and steers them.
//!
//! ```no_run
//! use leveret::backend::Backend;
//! use leveret::{Client, Namespace, Workflow};
//!
//! const CHECKOUT: Workflow<u64, String> = Workflow::new("orders", "checkout");
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(Backend::memory(Namespace::new("shop")?));
//! let run = client.start(CHECKOUT, 17).id("order-17").await?;
//! println!("{}", client.instance("orders", "order-17")?.get().await?.waiting);
//! let summary = run.result().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here needs a worker to answer: it reads and writes the store, and publishes to the broker what a worker has to do. What was answered with
//! `Ok` is durable. Every operation may be repeated after any error; [`Error::retryable`] says whether that can help.
//!
//! Operations are builders that are awaited: `client.start(..).id(..).await`. Each request to the servers is given up after a while
//! ([`ClientBuilder::patience`]); waiting for a result is not, unless [`within`](ResultWait::within) says so.

mod api;
mod audit;
mod command;
mod dead;
mod error;
mod history;
mod info;
mod instance;
mod list;
mod purge;
mod raise;
mod retire;
mod run;
mod start;
mod target;
mod tree;
mod wait;
mod waiting;

pub use api::{Client, ClientBuilder};
pub use audit::{Audit, AuditReport, Finding, Repair, Trouble, Undecided};
pub use command::{CommandState, StatusChange, Terminate};
pub use dead::{DeadLetter, DeadLetters, LetterContent, LetterFilter, OpenedLetter, Retried, RetriedLetter};
pub use error::Error;
pub use history::ChildInfo;
pub use info::{InstanceInfo, InstanceSummary};
pub use instance::Instance;
pub use list::{Filter, List, Page, PageToken};
pub use purge::{Purge, PurgeMany};
pub use raise::{Raise, Raised};
pub use retire::RemoveApp;
pub use run::Run;
pub use start::{OnConflict, Start};
pub use target::{Target, TargetState};
pub use wait::ResultWait;
pub use waiting::{Waiting, WaitingOn};
