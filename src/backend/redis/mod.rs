//! The store on Redis (or Valkey).
//!
//! All state of one instance lies under one hash tag, and every change to it is one Lua script (`scripts/`, one file each, which says what repeating
//! it does): so a change is atomic, and works on a node of a cluster. What is not about one instance (due-sets, index, workers) has tags of its own;
//! nothing spans two tags, because what crosses them is a hint or is driven by marks.
//!
//! * `keys` names the keys, and `record` says how a record lies in its hash;
//! * `link` keeps connections that heal themselves, `together` sends small calls that are there at once in one go, `script` calls a script, `reply` reads its answer, `problem` says what an error means;
//! * `instance`, `changes`, `claims`, `due`, `index`, `directory` and `ended` do what the parts of the trait say; `store` puts them together.

mod changes;
mod claims;
mod config;
mod directory;
mod due;
mod end;
mod ended;
mod gather;
mod index;
mod instance;
mod keys;
mod link;
mod problem;
mod record;
mod reply;
mod script;
mod store;
mod survey;
mod together;
mod token;

pub use config::RedisConfig;
pub use store::RedisStore;
