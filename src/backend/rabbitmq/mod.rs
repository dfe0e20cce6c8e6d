//! The broker on RabbitMQ: durable queues, confirms, acknowledgements, and connections that heal.
//!
//! [`RabbitMq`] keeps a *link* to the server: one connection to publish and one to consume, because while a broker blocks publishers the client
//! library stops writing on that connection, acknowledgements included. A supervisor owns the link. On any error it tears down both connections
//! and builds everything again (connections, exchanges, queues, the publishing channel), with back-off and jitter, for ever. Each link has a
//! generation; what belongs to an earlier one ends by itself: publishes in flight end as *unknown*, subscriptions end, acknowledgements do nothing.
//!
//! | file | owns |
//! |---|---|
//! | `broker` | the public type and its [`Broker`](super::Broker) methods |
//! | `config`, `address` | settings; the server's address, which is all that is ever printed of its URL |
//! | `supervisor`, `link` | the link and its healing |
//! | `topology`, `names` | exchanges, queues and their arguments; what they are called |
//! | `publisher` | confirms, pipelined within a window |
//! | `consumer`, `settle` | deliveries; acknowledgements, batched |
//! | `browse` | looking through a queue |
//! | `properties` | what stands beside a body |
//! | `fault` | which errors of the client library are worth a retry |
//!
//! RabbitMQ 3.10 is the oldest server that it works with.

mod address;
mod broker;
mod browse;
mod config;
mod consumer;
mod fault;
mod link;
mod names;
mod properties;
mod publisher;
mod settle;
mod supervisor;
mod topology;

pub use broker::RabbitMq;
pub use config::RabbitMqConfig;
