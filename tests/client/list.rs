use leveret::client::{Error, Filter, PageToken};
use leveret::{Client, Status};

use crate::fixture::*;

async fn start_many(client: &Client, count: u64) {
    for number in 0..count {
        let kind = if number % 100 == 7 { "rare" } else { "common" };
        let start = client.start(CHECKOUT, number).id(format!("i-{number:04}"));
        start.tag("kind", kind).await.unwrap();
    }
}

/// The IDs of each page, and how many pages there were.
async fn pages(client: &Client, filter: Filter, size: usize) -> Vec<Vec<String>> {
    let (mut list, mut pages) = (client.list(filter).page_size(size), Vec::new());
    loop {
        let page = list.clone().await.unwrap();
        pages.push(
            page.instances
                .iter()
                .map(|found| found.instance.id.to_string())
                .collect(),
        );
        match page.next {
            // Through its text, as over HTTP.
            Some(next) => list = list.after(next.to_string().parse::<PageToken>().unwrap()),
            None => return pages,
        }
        assert!(pages.len() < 2000, "the token does not end");
    }
}

#[tokio::test]
async fn pages_are_full_in_order_and_come_to_an_end() {
    let (client, _) = client();
    start_many(&client, 1030).await;
    let expected: Vec<String> = (0..1030).map(|number| format!("i-{number:04}")).collect();
    let pages = pages(&client, Filter::app("orders"), 100).await;
    assert_eq!(
        pages.iter().map(Vec::len).take(11).collect::<Vec<_>>(),
        [[100; 10].as_slice(), &[30]].concat()
    );
    let mut listed = pages.concat();
    // Instances of one millisecond are in order of their IDs, and these IDs are in order of creation.
    assert_eq!(listed, expected);
    listed = client
        .list(Filter::app("orders"))
        .collect()
        .await
        .unwrap()
        .into_iter()
        .map(|found| found.instance.id.to_string())
        .collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_page_is_full_however_few_instances_match() {
    let (client, _) = client();
    start_many(&client, 1030).await;
    let pages = pages(&client, Filter::app("orders").tag("kind", "rare"), 4).await;
    assert_eq!(
        pages
            .iter()
            .map(Vec::len)
            .filter(|length| *length > 0)
            .collect::<Vec<_>>(),
        [4, 4, 3]
    );
    let expected: Vec<String> = (0..11).map(|hundred| format!("i-{hundred:02}07")).collect();
    assert_eq!(pages.concat(), expected);
}

#[tokio::test]
async fn a_filter_asks_for_status_name_and_time() {
    let (client, backend) = client();
    for id in ["a", "b", "c"] {
        client.start(CHECKOUT, 1).id(id).await.unwrap();
    }
    client.start_named::<()>("orders", "refund", 1).id("d").await.unwrap();
    play(&backend, &instance("orders", "b"), Played::completed("done")).await;
    let ids = async |filter: Filter| {
        let found = client.list(filter).collect().await.unwrap();
        found
            .into_iter()
            .map(|found| found.instance.id.to_string())
            .collect::<Vec<_>>()
    };
    let orders = || Filter::app("orders");
    assert_eq!(ids(orders().status(Status::Completed)).await, ["b"]);
    assert_eq!(ids(orders().status(Status::Pending).name("checkout")).await, ["a", "c"]);
    assert_eq!(
        ids(orders().status(Status::Pending).status(Status::Completed))
            .await
            .len(),
        4
    );
    let created = record(&backend, &instance("orders", "a")).await.origin.created_at;
    assert_eq!(ids(orders().created_before(created)).await.len(), 0);
    assert_eq!(ids(orders().created_from(created)).await.len(), 4);
    assert_eq!(ids(Filter::app("other")).await.len(), 0);
}

#[tokio::test]
async fn all_apps_are_listed_one_after_the_other() {
    let (client, backend) = client();
    for name in ["b", "a", "c"] {
        backend.store().adopt_app(&app(name), 1).await.unwrap();
        for id in ["1", "2", "3"] {
            client.start_named::<()>(name, "w", ()).id(id).await.unwrap();
        }
    }
    let list = client.list(Filter::all_apps()).page_size(2);
    let all = list.clone().collect().await.unwrap();
    let names: Vec<String> = all.iter().map(|found| found.instance.to_string()).collect();
    assert_eq!(names, ["a/1", "a/2", "a/3", "b/1", "b/2", "b/3", "c/1", "c/2", "c/3"]);
}

#[tokio::test]
async fn bad_pages_are_refused_by_name() {
    let (client, _) = client();
    let size = client.list(Filter::app("orders")).page_size(0).await.unwrap_err();
    assert_eq!(size.to_string(), "the page size is 0: use 1 to 1000");
    assert!(
        "no token"
            .parse::<PageToken>()
            .unwrap_err()
            .to_string()
            .contains("is not one")
    );
    let token: PageToken = "payments/x".parse().unwrap();
    let foreign = client.list(Filter::app("orders")).after(token).await.unwrap_err();
    assert!(matches!(foreign, Error::InvalidInput { .. }), "{foreign}");
}
