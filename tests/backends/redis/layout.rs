//! What lies under which key, seen from beside the store.

use std::collections::HashMap;

use leveret::backend::{Deliver, Record};

use super::*;

/// A store in a namespace that nobody has used, and a connection beside it.
async fn looked_at() -> (Fresh, Namespace, Beside) {
    let config = RedisConfig::new(shared_url(), fresh_namespace());
    let namespace = config.namespace.clone();
    let store: Fresh = RedisStore::connect(config).await.unwrap();
    (store, namespace, Beside::open(&shared_url()).await)
}

/// The commit that begins the next execution.
fn next_execution(instance: &InstanceRef, now: &Record) -> Commit {
    Commit {
        next_execution: Some(now.execution.next()),
        cleared: now.marks.clone(),
        ..turn(instance, now.guard())
    }
}

/// Redis Cluster's rule: between the first `{` and the first `}` after it.
fn tag(key: &str) -> &str {
    let (_, rest) = key.split_once('{').expect("a tag begins");
    rest.split_once('}').expect("a tag ends").0
}

#[tokio::test]
async fn all_keys_of_an_instance_share_one_hash_tag() {
    let (store, namespace, mut beside) = looked_at().await;
    let ids = ["plain", "{", "}", "a{b}c", "a:b/c%d", "a b", "ünïcödé", "%7B", "}:meta"];
    for id in ids {
        let instance = InstanceRef::new(app("orders"), InstanceId::new(id).unwrap());
        // A replaced run, a live one with all that it can have, and a refused request.
        running(&store, &instance).await;
        end(&store, &instance).await;
        let before = running(&store, &instance).await;
        park(&store, &instance, "item").await;
        apply(&store, &turn(&instance, before.guard())).await;
        store
            .progress(&instance, before.execution, 1, false, None)
            .await
            .unwrap();
        let refused = request(&instance).origin.request;
        store.refuse(&instance, &refused, KEEP).await.unwrap();
    }
    let mut by_tag: HashMap<String, usize> = HashMap::new();
    for key in beside.keys_of(&namespace).await {
        *by_tag.entry(tag(&key).to_owned()).or_default() += 1;
    }
    assert_eq!(by_tag.len(), ids.len(), "{by_tag:?}");
    // Record and history, inbox, claims, the receipts of the replaced and of the refused, and a past outcome.
    assert!(by_tag.values().all(|keys| *keys == 6), "{by_tag:?}");
}

#[tokio::test]
async fn an_instance_is_in_one_set_of_the_index() {
    let (store, namespace, mut beside) = looked_at().await;
    let instance = instance("a");
    let first = running(&store, &instance).await;
    let over = end(&store, &instance).await;
    // (what is noted, what there is afterwards)
    let ended = ["completed", "noted"];
    let notes = [
        (&first, &["running"][..]),
        (&over, &ended),
        (&first, &ended),
        (&over, &ended),
    ];
    for (note, parts) in notes {
        store.index(&instance, note).await.unwrap();
        let mut keys = beside.keys_of(&namespace).await;
        keys.retain(|key| key.contains("/index}:"));
        keys.sort();
        let index = format!("lv:{{{namespace}/{}/index}}:", instance.app);
        let parts: Vec<_> = parts.iter().map(|part| format!("{index}{part}")).collect();
        assert_eq!(keys, parts);
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_read_keeps_no_other_from_being_noted() {
    let (store, namespace, mut beside) = looked_at().await;
    let (damaged, other) = (instance("a"), instance("b"));
    let mut note = pending(&store, &damaged).await;
    store.index(&damaged, &note).await.unwrap();
    // One that had the ID before is noted late, and what there is now is to be asked.
    note.origin.created_at = Timestamp::from_millis(7);
    let prefix = format!("lv:{{{namespace}/{}", damaged.app);
    let _: () = beside.ask(&["SET", &format!("{prefix}/a}}:meta"), "no hash"]).await;
    let beside_it = pending(&store, &other).await;
    let (first, second) = tokio::join!(store.index(&damaged, &note), store.index(&other, &beside_it));
    first.and(second).unwrap();
    let running: Vec<String> = beside
        .ask(&["ZRANGE", &format!("{prefix}/index}}:running"), "0", "-1"])
        .await;
    assert_eq!(running, ["a", "b"]);
}

#[tokio::test]
async fn turns_are_read_up_to_one_that_is_missing_and_go_with_their_execution() {
    let (store, namespace, mut beside) = looked_at().await;
    let instance = instance("a");
    let mut now = running(&store, &instance).await;
    for _ in 0..3 {
        now = apply(&store, &turn(&instance, now.guard())).await.0;
    }
    let all = store.load(&instance, 0, 0).await.unwrap().unwrap().turns;
    assert_eq!(all.len(), 4);
    let meta = format!("lv:{{{namespace}/{}/a}}:meta", instance.app);
    let _: u64 = beside.ask(&["HDEL", &meta, "3"]).await;
    let loaded = store.load(&instance, 0, 0).await.unwrap().unwrap();
    assert_eq!(loaded.turns, all[..2]);
    assert_eq!(store.turns(&instance, now.execution, 1, 9).await.unwrap(), all[1..2]);
    assert!(store.turns(&instance, now.execution, 2, 9).await.unwrap().is_empty());

    let (after, _) = apply(&store, &next_execution(&instance, &now)).await;
    assert_eq!((after.input, after.origin, after.run), (now.input, now.origin, now.run));
    let mut fields: Vec<String> = beside.ask(&["HKEYS", &meta]).await;
    fields.sort();
    assert_eq!(fields, ["1", "input", "origin", "run", "state", "view"]);
}

#[tokio::test]
async fn a_record_that_has_lost_a_field_is_not_made_anew_without_it() {
    let (store, namespace, mut beside) = looked_at().await;
    let instance = instance("a");
    let now = running(&store, &instance).await;
    let meta = format!("lv:{{{namespace}/{}/a}}:meta", instance.app);
    let _: u64 = beside.ask(&["HDEL", &meta, "origin"]).await;
    let before: Vec<String> = beside.ask(&["HKEYS", &meta]).await;
    let error = store.commit(&next_execution(&instance, &now)).await.unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("`origin`"),
        "{error}"
    );
    assert_eq!(beside.ask::<Vec<String>>(&["HKEYS", &meta]).await, before);
}

#[tokio::test]
async fn a_deleted_instance_leaves_nothing_that_stays() {
    let (store, namespace, mut beside) = looked_at().await;
    let (here, absent) = (instance("a"), instance("b"));
    let early = Deliver {
        keep_absent: Some(KEEP),
        ..item(&absent, "early")
    };
    store.deliver(&early).await.unwrap();
    running(&store, &here).await;
    end(&store, &here).await;
    let before = running(&store, &here).await;
    store.index(&here, &before).await.unwrap();
    park(&store, &here, "unread").await;
    store.progress(&here, before.execution, 1, false, None).await.unwrap();
    store.refuse(&here, &request(&here).origin.request, KEEP).await.unwrap();
    let over = end(&store, &here).await;
    store.delete(&here, over.execution, KEEP).await.unwrap();
    store.unindex(&here).await.unwrap();

    let keys = beside.keys_of(&namespace).await;
    // Three receipts, two outcomes, and the inbox of the one that has not come.
    assert_eq!(keys.len(), 6, "{keys:?}");
    for key in keys {
        let ttl: i64 = beside.ask(&["PTTL", &key]).await;
        assert!(ttl > 0 && ttl <= KEEP.as_millis() as i64, "{key} stays for {ttl} ms");
        // That of the run that was replaced as long as that of the one that was deleted: as long as their receipts.
        let least = KEEP.as_millis() as i64 / 2;
        assert!(ttl > least || !key.contains(":run:"), "{key} stays for {ttl} ms");
        assert!(
            [":receipt:", ":run:", ":inbox"].iter().any(|part| key.contains(part)),
            "{key}"
        );
    }
}
