//! Commits that are made at once, which go out in one pipeline: each has an answer of its own.

use futures_util::future::{join, join_all};

use super::*;

/// As many running instances, and the next commit of each.
async fn server_with_commits(count: usize) -> (Server, Fresh, Vec<Commit>) {
    let server = Server::start().await;
    let store: Fresh = connect(&server.url()).await.unwrap();
    let mut commits = Vec::with_capacity(count);
    for n in 0..count {
        let instance = instance(&format!("i{n}"));
        commits.push(turn(&instance, running(&store, &instance).await.guard()));
    }
    (server, store, commits)
}

#[tokio::test]
async fn of_commits_made_at_once_one_that_is_refused_fails_alone() {
    let (server, store, mut commits) = server_with_commits(40).await;
    let mut beside = Beside::open(&server.url()).await;
    let meta: Vec<String> = beside.ask(&["KEYS", "*/i7}:meta"]).await;
    let inbox = meta[0].replace(":meta", ":inbox");
    let _: () = beside.ask(&["SET", &inbox, "no list"]).await;
    let _: () = beside.ask(&["SCRIPT", "FLUSH"]).await;
    let committed = join_all(commits.iter().map(|commit| store.commit(commit))).await;
    for (n, committed) in committed.into_iter().enumerate() {
        match committed {
            Ok(committed) => assert!(
                matches!(committed, Committed::Applied { .. }) && n != 7,
                "{n}: {committed:?}"
            ),
            Err(error) => assert!(
                error.is_permanent() && error.to_string().contains("WRONGTYPE") && n == 7,
                "{n}: {error}"
            ),
        }
    }
    let refused = &commits[7];
    assert_eq!(record(&store, &refused.instance).await.guard(), refused.guard);
    // Sent again, each is found to have been made.
    commits.remove(7);
    for committed in join_all(commits.iter().map(|commit| store.commit(commit))).await {
        assert!(matches!(committed, Ok(Committed::Applied { .. })), "{committed:?}");
    }
}

#[tokio::test]
async fn commits_made_at_once_whose_connection_breaks_are_repeated_without_harm() {
    let (server, store, commits) = server_with_commits(200).await;
    let mut beside = Beside::open(&server.url()).await;
    let breaks = async {
        let _: u64 = beside.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    };
    let (committed, ()) = join(join_all(commits.iter().map(|commit| store.commit(commit))), breaks).await;
    for error in committed.into_iter().filter_map(Result::err) {
        assert!(!error.is_permanent(), "{error}");
    }
    for commit in &commits {
        commit_until_applied(&store, commit).await;
        assert_eq!(record(&store, &commit.instance).await.version, commit.version());
    }
}
