//! `leveret audit`: what nothing would move, and what is left over.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use leveret::Client;
use leveret::client::{AuditReport, Finding};
use serde_json::json;

use crate::arguments::Audit;
use crate::problem::Problem;
use crate::{connect, output};

/// True if something is wrong and not repaired.
pub(crate) async fn run(arguments: Audit) -> Result<bool, Problem> {
    if arguments.metrics.is_some() && arguments.every.is_none() {
        return Err(Problem::Usage(
            "--metrics serves the last of many audits: say how often with --every, such as --every 5m".into(),
        ));
    }
    if arguments.every.is_some_and(|every| every.is_zero()) {
        return Err(Problem::Usage(
            "--every 0s leaves no room for anything else: use at least 1s".into(),
        ));
    }
    let client = connect::client(arguments.wait, arguments.app.as_deref()).await?;
    let Some(every) = arguments.every else {
        return once(&client, &arguments).await.map(|report| !report.is_clean());
    };
    let last = Arc::new(Mutex::new(String::new()));
    if let Some(address) = arguments.metrics {
        serve(address, last.clone()).await?;
    }
    let shutdown = leveret::shutdown_signal();
    tokio::pin!(shutdown);
    loop {
        let round = async {
            match once(&client, &arguments).await {
                Ok(report) => *last.lock().unwrap_or_else(PoisonError::into_inner) = report.metrics(),
                // What it says stays as it was; its time tells that it is old.
                Err(problem @ Problem::Failed(_)) => eprintln!("leveret: {problem}; trying again in {every:?}"),
                Err(problem) => return Err(problem),
            }
            tokio::time::sleep(every).await;
            Ok(())
        };
        tokio::select! {
            () = &mut shutdown => return Ok(false),
            ended = round => ended?,
        }
    }
}

async fn once(client: &Client, arguments: &Audit) -> Result<AuditReport, Problem> {
    let mut audit = client.audit().grace(arguments.grace).patience(arguments.patience);
    if let Some(app) = &arguments.app {
        audit = audit.app(app);
    }
    if arguments.repair {
        audit = audit.repair();
    }
    let report = audit.await?;
    match arguments.json {
        true => {
            let mut value = serde_json::to_value(&report)
                .map_err(|error| Problem::Failed(format!("cannot write it as JSON: {error}")))?;
            value["stuck"] = json!(report.stuck_instances.values().sum::<u64>());
            output::json(&value)?;
        }
        false => show(&report)?,
    }
    Ok(report)
}

fn show(report: &AuditReport) -> Result<(), Problem> {
    if !report.findings.is_empty() {
        let head = ["finding", "app", "instance", "repair", "what is wrong"];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(report.findings.iter().map(row));
        output::table(&rows)?;
    }
    for undecided in &report.undecided {
        let what = match (&undecided.queue, &undecided.instance) {
            (Some(queue), _) => format!("{} at queue {queue}", counted(undecided.instances as u64, "instance")),
            (None, Some(instance)) => instance.to_string(),
            (None, None) => counted(undecided.instances as u64, "instance"),
        };
        output::line(&format!("undecided: {what}: {}", undecided.reason))?;
    }
    let looked_at: u64 = report.instances.values().sum();
    eprintln!(
        "{} looked at: {}, {} stuck{}",
        counted(looked_at, "instance"),
        counted(report.findings.len() as u64, "finding"),
        report.stuck_instances.values().sum::<u64>(),
        match report.more {
            0 => String::new(),
            more => format!("; {more} more findings did not fit: audit again"),
        }
    );
    Ok(())
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn row(finding: &Finding) -> Vec<String> {
    let instance = finding.instance.as_ref();
    vec![
        finding.trouble.to_string(),
        finding.app.to_string(),
        instance.map_or_else(|| "-".into(), ToString::to_string),
        finding.repair.to_string(),
        finding.reason.clone(),
    ]
}

/// Serves the last report's numbers at `/metrics` until the process ends.
async fn serve(address: SocketAddr, last: Arc<Mutex<String>>) -> Result<(), Problem> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Problem::Usage(format!("--metrics: cannot listen on {address}: {error}")))?;
    if let Ok(address) = listener.local_addr() {
        eprintln!("serving http://{address}/metrics");
    }
    let answer = move || {
        let text = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        std::future::ready(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
    };
    let router = Router::new().route("/metrics", get(answer));
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
