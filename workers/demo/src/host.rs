//! The two ways to run: with the apps in this process, or as a client of apps elsewhere.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use leveret::backend::Backend;
use leveret::{Client, Namespace};
use payments::Ledger;

use crate::arguments::{Demo, Submit};
use crate::outcome::{self, Outcome};
use crate::plan::Plan;
use crate::problem::Problem;
use crate::progress::Progress;
use crate::{paint, table, watch};

/// The three apps on one file, and the orders through them.
pub(crate) async fn demo(arguments: Demo) -> Result<(), Problem> {
    let Demo {
        file,
        store,
        fresh,
        json,
    } = arguments;
    let plan = Plan::read(file.as_deref(), None)?;
    if fresh {
        forget(&store).await?;
    }
    let backend = open(&store).await?;
    let ledger = Ledger::open(ledger_of(&store))
        .map_err(|error| Problem::Failed(format!("{}: {error}", ledger_of(&store).display())))?;
    let workers = [
        orders::worker(backend.clone()).start().await?,
        payments::worker(backend.clone(), ledger.clone()).start().await?,
        shipping::worker(backend.clone()).start().await?,
    ];
    let client = Client::new(backend);
    let progress = Progress::new(&plan);
    progress.say(&format!(
        "{} orders from {}; apps orders, payments and shipping run in this process; state is in {}",
        plan.orders.len(),
        plan.source,
        store.display()
    ));
    let watched = tokio::select! {
        watched = watch::to_the_end(&client, &plan, &progress) => watched,
        () = leveret::shutdown_signal() => Err(Problem::Failed("stopped; the same command goes on from here".into())),
    };
    progress.end();
    let outcomes = match watched {
        Ok(()) => outcome::of_all(&client, &plan).await,
        Err(problem) => Err(problem),
    };
    for worker in workers {
        worker.stop().await;
    }
    show(&outcomes?, json, Some(&ledger));
    if !json {
        let chosen = if store == Path::new("leveret-demo.db") {
            String::new()
        } else {
            format!(" --store {}", store.display())
        };
        let first = &plan.orders[0].id;
        eprintln!("\nLook further:");
        for (arguments, shows) in [
            (
                format!("history {first}{chosen}"),
                "what happened to one order, event by event",
            ),
            (
                format!("demo --json{chosen}"),
                "the table as JSON, with outputs and failures",
            ),
            (
                format!("demo --fresh{chosen}"),
                "from the beginning; kill it in the middle and run it again",
            ),
        ] {
            eprintln!("  {:48} {shows}", format!("cargo run --release -- {arguments}"));
        }
        eprintln!(
            "  {:48} the same apps as three processes on RabbitMQ and Redis",
            "README.md"
        );
    }
    Ok(())
}

/// The orders through apps that run elsewhere.
pub(crate) async fn submit(arguments: Submit) -> Result<(), Problem> {
    let Submit { file, again, json } = arguments;
    let plan = Plan::read(file.as_deref(), again.as_deref())?;
    let backend = servers().await?;
    let progress = Progress::new(&plan);
    progress.say(&format!(
        "{} orders from {} go to {backend}",
        plan.orders.len(),
        plan.source
    ));
    let client = Client::new(backend);
    let watched = tokio::select! {
        watched = watch::to_the_end(&client, &plan, &progress) => watched,
        () = leveret::shutdown_signal() => Err(Problem::Failed("stopped; the orders go on, the same command shows them again".into())),
    };
    progress.end();
    watched?;
    show(&outcome::of_all(&client, &plan).await?, json, None);
    Ok(())
}

/// The backend of the environment, if it names servers: a file of our own would have no workers.
pub(crate) async fn servers() -> Result<Backend, Problem> {
    if ["LEVERET_AMQP_URL", "LEVERET_REDIS_URL"]
        .iter()
        .any(|name| std::env::var_os(name).is_none())
    {
        return Err(Problem::Usage(
            "set LEVERET_AMQP_URL and LEVERET_REDIS_URL, as the apps have them; README.md shows how".into(),
        ));
    }
    Ok(Backend::from_env().await?)
}

pub(crate) async fn open(store: &Path) -> Result<Backend, Problem> {
    Ok(Backend::embedded(store, Namespace::new("demo")?).await?)
}

fn ledger_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".ledger");
    path.into()
}

/// Deletes the store and its ledger, once it is certain that it is a store and that nobody else has it open.
async fn forget(store: &Path) -> Result<(), Problem> {
    if !store.exists() {
        return Ok(());
    }
    drop(open(store).await?);
    for path in [store, &ledger_of(store)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Problem::Failed(format!("{}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

fn show(outcomes: &[Outcome], json: bool, ledger: Option<&Ledger>) {
    let entries = ledger.map(Ledger::entries);
    if json {
        print!("{}", table::json_lines(outcomes, entries.as_deref()));
        return;
    }
    print!(
        "{}",
        table::for_people(outcomes, paint::wanted(std::io::stdout().is_terminal()))
    );
    if let Some(entries) = entries {
        println!("{}", table::ledger(&entries));
    }
}
