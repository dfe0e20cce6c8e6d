//! What the threads of one test log.
//!
//! One subscriber for the whole process. With one for each thread, the first thread to reach a line decides for all of them whether that line is
//! ever told, and a thread that nobody listens to says no (tracing caches the answer).

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

thread_local! {
    static HEARD: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Lines as they would be printed.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Hears this thread, at `INFO` and above, for as long as the thread lives.
    pub(crate) fn hear_this_thread(&self) {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_writer(|| HEARD.with_borrow(Clone::clone).unwrap_or_default());
            let heard = dynamic_filter_fn(|_, _| HEARD.with_borrow(Option::is_some)).with_max_level_hint(Level::INFO);
            let heard = lines.with_filter(heard);
            tracing_subscriber::registry().with(heard).init();
        });
        HEARD.set(Some(self.clone()));
    }

    /// The lines that contain this, the first one first.
    pub(crate) fn lines(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("text");
        text.lines()
            .filter(|line| line.contains(part))
            .map(str::to_owned)
            .collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
