//! From the environment to a client: the same variables as the workers', and nothing that only a worker does.

use std::time::Duration;

use leveret::Client;
use leveret::backend::Backend;
use leveret::config::{Config, Place};

use crate::problem::Problem;

/// A client of the namespace that the environment names. `app` is one that is asked about: it has to be there.
pub(crate) async fn client(wait: Duration, app: Option<&str>) -> Result<Client, Problem> {
    let mut config = Config::from_env().map_err(|error| Problem::Usage(error.to_string()))?;
    if let Place::File(path) = &config.place
        && !path.exists()
    {
        return Err(Problem::Usage(format!(
            "there is nothing to look at: set LEVERET_AMQP_URL, LEVERET_REDIS_URL and LEVERET_NAMESPACE as the workers have them (there is no file {} either)",
            path.display()
        )));
    }
    // The port is the workers'.
    config.settings.http = None;
    let backend = tokio::select! {
        opened = Backend::open(config) => opened.map_err(|error| Problem::Failed(error.to_string()))?,
        () = tokio::time::sleep(wait) => {
            return Err(Problem::Failed(format!("the servers did not answer within {wait:?}: see above, or wait longer with --wait")));
        }
    };
    let namespace = backend.namespace().clone();
    let client = Client::builder(backend).patience(wait).build();
    if let Some(app) = app {
        let apps = client.apps().await?;
        if apps.iter().all(|known| known.id.as_str() != app) {
            let known: Vec<_> = apps.iter().map(|known| known.id.as_str()).collect();
            return Err(Problem::Usage(format!(
                "no worker of an app {app:?} has ever started in namespace {namespace}; there are: {}",
                known.join(", ")
            )));
        }
    }
    Ok(client)
}
