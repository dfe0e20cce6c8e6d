//! Contracts: the typed names that callers and implementers share.

use std::fmt;
use std::marker::PhantomData;

macro_rules! contract {
    ($(#[$doc:meta])* $name:ident, $does:literal) => {
        $(#[$doc])*
        pub struct $name<I, O> {
            app: &'static str,
            name: &'static str,
            types: PhantomData<fn(I) -> O>,
        }

        impl<I, O> $name<I, O> {
            #[doc = concat!("Names ", $does, " and the app that hosts it. The names are checked when it is registered or called.")]
            pub const fn new(app: &'static str, name: &'static str) -> Self {
                Self { app, name, types: PhantomData }
            }

            /// The app that hosts it.
            pub const fn app(&self) -> &'static str {
                self.app
            }

            /// Its name within that app.
            pub const fn name(&self) -> &'static str {
                self.name
            }
        }

        impl<I, O> Clone for $name<I, O> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<I, O> Copy for $name<I, O> {}

        impl<I, O> fmt::Debug for $name<I, O> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}/{})"), self.app, self.name)
            }
        }
    };
}

contract!(
    /// An activity: takes an `I`, gives an `O`, runs at least once on the app that owns it.
    ///
    /// ```
    /// use leveret::Activity;
    /// pub const CHARGE: Activity<u64, String> = Activity::new("payments", "charge");
    /// assert_eq!((CHARGE.app(), CHARGE.name()), ("payments", "charge"));
    /// ```
    Activity, "an activity"
);
contract!(
    /// A workflow: takes an `I`, gives an `O`, hosted by the app that owns it.
    Workflow, "a workflow"
);

/// An external event that carries a `T`. Names are matched without case.
pub struct Event<T> {
    name: &'static str,
    types: PhantomData<fn(T)>,
}

impl<T> Event<T> {
    /// Names an event.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            types: PhantomData,
        }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Event<T> {}

impl<T> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({})", self.name)
    }
}
