//! `$name`, `${name}`, `$group.name`, `${group.name}`; `$$` and `\$` are a dollar sign.

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Stands for itself.
    Text(&'a str),
    /// Stands for an option.
    Name(&'a str),
}

/// Splits a value into texts and names. A dollar sign before anything that can't be a name stands for itself.
pub(super) fn pieces(value: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, from) = rest.split_at(at);
        found.push(Piece::Text(before));
        let (piece, length) = piece_at(from);
        found.push(piece);
        rest = from.get(length..).unwrap_or_default();
    }
    found.push(Piece::Text(rest));
    found.retain(|piece| *piece != Piece::Text(""));
    found
}

/// The piece at a `$` or `\`, and its length in bytes.
fn piece_at(text: &str) -> (Piece<'_>, usize) {
    if text.starts_with("$$") || text.starts_with("\\$") {
        return (Piece::Text("$"), 2);
    }
    if let Some((name, _)) = text.strip_prefix("${").and_then(|inner| inner.split_once('}'))
        && is_name(name)
    {
        return (Piece::Name(name), name.len() + 3);
    }
    let after = text.strip_prefix('$').unwrap_or_default();
    let name = bare_name(after);
    if name.is_empty() {
        (Piece::Text(text.get(..1).unwrap_or_default()), 1)
    } else {
        (Piece::Name(name), name.len() + 1)
    }
}

/// The longest `name` or `group.name` at the start: a dot counts only if a name follows it.
fn bare_name(text: &str) -> &str {
    let first = word(text);
    if first.is_empty() {
        return "";
    }
    let second = text.get(first.len()..).and_then(|rest| rest.strip_prefix('.')).map_or("", word);
    let length = if second.is_empty() { first.len() } else { first.len() + 1 + second.len() };
    text.get(..length).unwrap_or_default()
}

fn word(text: &str) -> &str {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if starts { text.get(..end).unwrap_or_default() } else { "" }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && bare_name(text) == text
}

/// A value that reads as itself.
pub(super) fn escaped(value: &str) -> String {
    value.replace('$', "$$")
}
