//! The memory backend.

use leveret::Namespace;
use leveret::backend::Backend;

fn fresh() -> Backend {
    Backend::memory(Namespace::new("n").expect("a valid namespace"))
}

mod broker {
    crate::broker_suite::broker_suite!(super::fresh().broker().clone());
}

mod store {
    async fn store() -> (crate::store_suite::fixture::Fresh, ()) {
        (super::fresh().store().clone(), ())
    }

    crate::store_suite::store_suite!(store());
}
