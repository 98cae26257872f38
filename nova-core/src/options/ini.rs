//! The INI form of oslo.config: sections, `key = value` (or `:`), `#` and `;` comments at the start of a line,
//! continuation lines that start with white space, values in quotes.

/// One assignment of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The section; `DEFAULT` before the first header.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value, continuation lines joined by line feeds, one pair of surrounding quotes removed.
    pub value: String,
    /// The line of the key, counted from 1.
    pub line: usize,
}

/// What a file contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The assignments, in order.
    pub entries: Vec<Entry>,
    /// The section headers with their lines, in order.
    pub sections: Vec<(String, usize)>,
    /// Lines that could not be read, with what is wrong. Parsing goes on behind them.
    pub errors: Vec<(usize, String)>,
}

/// Reads a text. Never fails as a whole: what can't be read is listed in [`Parsed::errors`].
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let mut reader = Reader { parsed: Parsed::default(), section: "DEFAULT".to_owned(), open: None };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split('\n').enumerate() {
        reader.line(line.trim_end(), index + 1);
    }
    reader.close();
    reader.parsed
}

struct Reader {
    parsed: Parsed,
    section: String,
    /// The assignment that continuation lines belong to.
    open: Option<Entry>,
}

impl Reader {
    fn line(&mut self, line: &str, number: usize) {
        if line.starts_with([' ', '\t']) {
            return self.continuation(line.trim_start(), number);
        }
        self.close();
        if line.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        match line.strip_prefix('[') {
            Some(rest) => self.header(rest, number),
            None => self.assignment(line, number),
        }
    }

    fn continuation(&mut self, text: &str, number: usize) {
        match &mut self.open {
            Some(entry) => {
                entry.value.push('\n');
                entry.value.push_str(text);
            }
            None => self.error(number, "the line starts with white space but continues nothing"),
        }
    }

    fn header(&mut self, rest: &str, number: usize) {
        match rest.strip_suffix(']').map(str::trim) {
            Some("") => self.error(number, "the section has no name"),
            Some(name) => {
                self.section = name.to_owned();
                self.parsed.sections.push((name.to_owned(), number));
            }
            None => self.error(number, "a section header must end with ']'"),
        }
    }

    fn assignment(&mut self, line: &str, number: usize) {
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return self.error(number, "expected 'key = value', a [section] or a comment");
        };
        let key = key.trim_end();
        if key.is_empty() {
            return self.error(number, "there is no name before '='");
        }
        self.open = Some(Entry {
            section: self.section.clone(),
            key: key.to_owned(),
            value: value.trim_start().to_owned(),
            line: number,
        });
    }

    fn close(&mut self) {
        if let Some(mut entry) = self.open.take() {
            entry.value = unquoted(&entry.value).to_owned();
            self.parsed.entries.push(entry);
        }
    }

    fn error(&mut self, line: usize, what: &str) {
        self.parsed.errors.push((line, what.to_owned()));
    }
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Writes assignments so that [`parse`] reads them back. Values may not contain empty lines, lines that start or end with
/// white space, nor carriage returns; a single-line value may start or end with spaces.
#[must_use]
pub fn render<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let mut text = String::new();
    let mut section = None;
    for (group, key, value) in entries {
        if section != Some(group) {
            text.push_str(&format!("[{group}]\n"));
            section = Some(group);
        }
        text.push_str(&format!("{key} = {}\n", rendered(value)));
    }
    text
}

fn rendered(value: &str) -> String {
    let needs_quotes = value.trim() != value || unquoted(value) != value;
    let quoted = if needs_quotes { format!("\"{value}\"") } else { value.to_owned() };
    quoted.replace('\n', "\n    ")
}
