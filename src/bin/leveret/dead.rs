//! `leveret dead`: messages that could not be processed.

use leveret::Timestamp;
use leveret::client::{DeadLetter, DeadLetters, LetterContent, LetterFilter, OpenedLetter, Retried};

use crate::arguments::{Chosen, Dead};
use crate::problem::Problem;
use crate::{connect, output};

/// True if there is something to look at.
pub(crate) async fn run(command: Dead) -> Result<bool, Problem> {
    match command {
        Dead::List(chosen) => list(chosen).await,
        Dead::Show(chosen) => show(chosen).await,
        Dead::Retry(chosen) => retry(chosen).await,
        Dead::Drop(chosen) => discard(chosen).await,
    }
}

async fn letters(chosen: &Chosen) -> Result<DeadLetters, Problem> {
    if chosen.most == 0 {
        return Err(Problem::Usage("--most 0 chooses nothing: use at least 1".into()));
    }
    let mut filter = match &chosen.app {
        Some(app) => LetterFilter::app(app),
        None => LetterFilter::all_apps(),
    };
    filter = chosen.ids.iter().fold(filter, LetterFilter::id);
    if let Some(origin) = &chosen.origin {
        filter = filter.origin(origin);
    }
    if let Some(reason) = &chosen.reason {
        filter = filter.reason(reason);
    }
    if let Some(kind) = &chosen.kind {
        filter = filter.kind(kind);
    }
    if let Some(age) = chosen.older_than {
        filter = filter.older_than(age);
    }
    if let Some(age) = chosen.younger_than {
        filter = filter.younger_than(age);
    }
    let client = connect::client(chosen.wait, chosen.app.as_deref()).await?;
    Ok(client.dead_letters(filter).most(chosen.most))
}

/// For what changes something.
async fn letters_to_change(chosen: &Chosen, does: &str) -> Result<DeadLetters, Problem> {
    if !chosen.is_limited() && !chosen.all {
        return Err(Problem::Usage(format!(
            "say which to {does}: IDs, a filter such as --app, or --all"
        )));
    }
    letters(chosen).await
}

async fn list(chosen: Chosen) -> Result<bool, Problem> {
    let letters = letters(&chosen).await?.list().await?;
    let is_complete = names_all(&chosen, letters.iter().map(|letter| letter.id.as_str()));
    if chosen.json {
        letters.iter().try_for_each(output::json)?;
    } else if letters.is_empty() {
        eprintln!("there are no dead letters{}", such(&chosen));
    } else {
        let head = ["id", "age", "app", "kind", "origin", "name", "instance", "reason"];
        let mut rows = vec![head.map(String::from).to_vec()];
        let now = now();
        rows.extend(letters.iter().map(|letter| row(letter, now)));
        output::table(&rows)?;
    }
    Ok(!letters.is_empty() || !is_complete)
}

/// True if something was found by each of the IDs; those by which nothing was are told.
fn names_all<'a>(chosen: &Chosen, found: impl Iterator<Item = &'a str>) -> bool {
    let found: Vec<_> = found.collect();
    let mut unknown = chosen.ids.clone();
    unknown.retain(|id| !found.iter().any(|found| found.starts_with(id.as_str())));
    for id in &unknown {
        eprintln!("no dead letter has an ID that begins with {id:?}");
    }
    unknown.is_empty()
}

fn such(chosen: &Chosen) -> &'static str {
    if chosen.is_limited() { " of that sort" } else { "" }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(since.unwrap_or_default().as_millis() as u64)
}

fn age_of(letter: &DeadLetter, now: Timestamp) -> String {
    letter
        .died_at
        .map_or_else(|| "?".into(), |at| output::age(now.since(at)))
}

fn row(letter: &DeadLetter, now: Timestamp) -> Vec<String> {
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        letter.id.clone(),
        age_of(letter, now),
        letter.app.to_string(),
        letter.kind.clone(),
        letter.origin.clone(),
        shown(letter.name.clone()),
        shown(letter.instance.as_ref().map(ToString::to_string)),
        letter.reason.clone(),
    ]
}

async fn show(chosen: Chosen) -> Result<bool, Problem> {
    let (mut ids, mut shown) = (Vec::new(), Ok(()));
    let show = |letter: OpenedLetter| {
        if shown.is_ok() {
            shown = match chosen.json {
                true => output::json(&letter),
                false if ids.is_empty() => show_one(&letter),
                false => output::line("").and_then(|()| show_one(&letter)),
            };
        }
        ids.push(letter.letter.id);
    };
    letters(&chosen).await?.open_each(show).await?;
    shown?;
    if ids.is_empty() {
        return Err(Problem::Failed(format!("there is no dead letter{}", such(&chosen))));
    }
    Ok(!names_all(&chosen, ids.iter().map(String::as_str)))
}

fn show_one(opened: &OpenedLetter) -> Result<(), Problem> {
    let letter = &opened.letter;
    output::line(&output::bold(&format!("letter {}", letter.id)))?;
    output::line(&format!("app      {}", letter.app))?;
    output::line(&format!("origin   {}", letter.origin))?;
    output::line(&format!("reason   {}", letter.reason))?;
    let died_at = letter.died_at.map_or_else(|| "unknown".into(), |at| at.to_string());
    output::line(&format!("died at  {died_at} ({} ago)", age_of(letter, now())))?;
    output::line(&format!("kind     {} ({} bytes)", letter.kind, letter.bytes))?;
    match &opened.settled {
        Some(why) => output::line(&format!("settled  {why}: a retry would have no effect, drop it"))?,
        None => output::line("settled  no")?,
    }
    match &opened.content {
        LetterContent::Items(items) => {
            for item in items {
                let text = serde_json::to_string_pretty(item)
                    .map_err(|error| Problem::Failed(format!("cannot write it as JSON: {error}")))?;
                output::line(&text)?;
            }
        }
        LetterContent::Text(text) => output::line(text)?,
        LetterContent::Hex(digits) => output::line(digits)?,
    }
    Ok(())
}

async fn retry(chosen: Chosen) -> Result<bool, Problem> {
    let retried = letters_to_change(&chosen, "retry").await?.retry().await?;
    for letter in &retried {
        match chosen.json {
            true => output::json(letter)?,
            false => output::line(&format!("{}  {}", letter.letter.id, letter.outcome))?,
        }
    }
    let sent = retried
        .iter()
        .filter(|letter| matches!(letter.outcome, Retried::Sent(_)))
        .count();
    eprintln!("{sent} of {} letters were sent", retried.len());
    Ok(sent < retried.len())
}

async fn discard(chosen: Chosen) -> Result<bool, Problem> {
    let dropped = letters_to_change(&chosen, "drop").await?.discard().await?;
    for letter in &dropped {
        match chosen.json {
            true => output::json(letter)?,
            false => output::line(&format!("{}  {}  {}", letter.id, letter.kind, letter.reason))?,
        }
    }
    eprintln!("{} letters were dropped", dropped.len());
    Ok(false)
}
