//! Colours, where they are wanted.

use leveret::Status;

/// Whether to paint what goes there: <https://no-color.org>.
pub(crate) fn wanted(is_terminal: bool) -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !is_refused
}

/// The text in the colour of the status.
pub(crate) fn status(text: &str, status: Status, is_wanted: bool) -> String {
    let colour = match status {
        Status::Completed => 32,
        Status::Failed | Status::Terminated => 31,
        _ => 33,
    };
    if is_wanted {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
