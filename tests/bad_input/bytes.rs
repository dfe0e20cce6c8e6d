//! Changes that know nothing of what they change.

use fastrand::Rng;

/// Random bytes, few more often than many.
pub(crate) fn random(rng: &mut Rng) -> Vec<u8> {
    let most = 1 << rng.u32(0..10);
    let length = rng.usize(0..most);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// One to four changes: a byte, a stretch left out or doubled, the end cut off.
pub(crate) fn change(rng: &mut Rng, bytes: &mut Vec<u8>) {
    /// Of MessagePack: nil, the largest lengths, the types at the ends of their ranges. Of JSON: what structures it.
    const TELLING: &[u8] = b"\xc0\xc1\xc6\xc9\xcb\xcf\xd3\xdb\xdd\xdf\x8f\x9f\xbf\x00\xff{}[]\",:\\-0e.";
    for _ in 0..rng.u32(1..5) {
        if bytes.is_empty() {
            return bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        let end = (at + 1 + rng.usize(0..9)).min(bytes.len());
        match rng.u8(0..6) {
            0 => bytes[at] ^= 1 << rng.u8(0..8),
            1 => bytes[at] = TELLING[rng.usize(..TELLING.len())],
            2 => bytes.insert(at, rng.u8(..)),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec()).collect::<Vec<_>>()),
            _ => bytes.truncate(at),
        }
    }
}

/// Text from an alphabet in which much has a meaning somewhere.
pub(crate) fn text(rng: &mut Rng) -> String {
    const PARTS: [&str; 38] = [
        "a", "B", "7", "-", "_", ".", "/", ":", "{", "}", "%", "%7D", " ", "\n", "\0", "\u{7f}", "\u{85}", "é",
        "\u{2028}", "\u{202e}", "😀", "amq", "\"", "\\", "'", "*", "#", "+", "\u{feff}", "\t", "order-1", "null", "0",
        "x", "é", "\u{301}", "\u{fffd}", "leveret",
    ];
    let length = match rng.u8(0..20) {
        0 => 0,
        1 => rng.usize(60..70),
        2 => rng.usize(190..260),
        3 => rng.usize(1000..1100),
        _ => rng.usize(1..8),
    };
    // Long ones are mostly of one piece, so that a limit of length is what decides.
    let only = (length > 8 && rng.bool()).then(|| PARTS[rng.usize(..3)]);
    std::iter::repeat_with(|| only.unwrap_or_else(|| PARTS[rng.usize(..PARTS.len())]))
        .take(length)
        .collect()
}
