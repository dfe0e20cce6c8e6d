//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// What is said to one who gives no command.
pub(crate) const GREETING: &str = "\
This is Leveret's demo: three apps (orders, payments, shipping) take a file of orders through a workflow that spans them.

  cargo run --release -- demo             all three in this process, state in one file, no servers
  cargo run --release -- demo FILE        your own orders (see workers/README.md)
  cargo run --release -- history 1007     what happened to one order, event by event
  cargo run --release -- submit           hands the orders to apps that run on RabbitMQ and Redis
  cargo run --release -- --help           everything else";

/// Takes a file of orders through a workflow that spans three apps.
#[derive(Parser)]
#[command(name = "leveret-demo", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs the three apps in this process, on one file, and takes the orders through.
    Demo(Demo),
    /// Hands the orders to apps that run as processes of their own, and watches: LEVERET_AMQP_URL and LEVERET_REDIS_URL say where.
    Submit(Submit),
    /// Shows what happened to one order, event by event.
    History(History),
}

/// Where state is kept unless --store says otherwise.
const STORE: &str = "leveret-demo.db";

#[derive(Args)]
pub(crate) struct Demo {
    /// A JSON file of orders; without it, the twelve of workers/demo/orders.json.
    pub(crate) file: Option<PathBuf>,
    /// The file that holds all state. The bank's ledger stands next to it.
    #[arg(long, value_name = "PATH", default_value = STORE)]
    pub(crate) store: PathBuf,
    /// Forgets what the store holds and begins anew.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Prints the table as JSON, one line an order.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Submit {
    /// A JSON file of orders; without it, the twelve of workers/demo/orders.json.
    pub(crate) file: Option<PathBuf>,
    /// Takes them through once more under other instance IDs, such as `--again 2`.
    #[arg(long, value_name = "LABEL")]
    pub(crate) again: Option<String>,
    /// Prints the table as JSON, one line an order.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct History {
    /// The order's number, or a whole instance ID.
    pub(crate) order: String,
    /// The file that holds the state.
    #[arg(long, value_name = "PATH", default_value = STORE, conflicts_with = "servers")]
    pub(crate) store: PathBuf,
    /// Looks on the servers that LEVERET_AMQP_URL and LEVERET_REDIS_URL name.
    #[arg(long)]
    pub(crate) servers: bool,
}
