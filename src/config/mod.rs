//! Configuration from the environment.
//!
//! [`variables`] is the one table of what can be set: parsing, messages and `docs/configuration.md` are made from it. [`Config::read`] is a pure
//! function of names and values; only [`Config::from_env`] looks at the process. It knows the model and nothing else of the crate: how a `Config`
//! becomes connections is the backend's matter.

mod draft;
mod near;
mod read;
mod table;
mod value;
mod variable;

pub use read::{Config, ConfigError, Place, Servers};
pub use table::variables;
pub use variable::Variable;
