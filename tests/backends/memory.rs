//! The memory backend.

mod store {
    use leveret::Namespace;
    use leveret::backend::Backend;

    async fn fresh() -> (crate::store_suite::fixture::Fresh, ()) {
        let backend = Backend::memory(Namespace::new("n").expect("a valid namespace"));
        (backend.store().clone(), ())
    }

    crate::store_suite::store_suite!(fresh());
}
