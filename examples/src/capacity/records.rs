//! Rows with named columns: CSV with a header, JSON lines, or a table of a database, all read the same way.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::str::FromStr;
use std::sync::Arc;

use super::database;

/// Something in the input that can't be used, with the place where it stands.
///
/// Shown as `FILE:LINE: COLUMN: what is wrong`; what isn't known is left out. For a table of a database the line is the
/// row's `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// The file or the database.
    pub source: Arc<str>,
    /// The line, from 1.
    pub line: Option<u64>,
    /// The column or option.
    pub column: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl InputError {
    /// Something wrong with the input as a whole.
    pub fn whole(source: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self { source: source.into(), line: None, column: None, reason: reason.into() }
    }

    /// Something wrong with a line.
    pub fn at_line(source: &Arc<str>, line: u64, reason: impl Into<String>) -> Self {
        Self { source: Arc::clone(source), line: Some(line), column: None, reason: reason.into() }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match &self.column {
            Some(column) => write!(f, ": {column}: {}", self.reason),
            None => write!(f, ": {}", self.reason),
        }
    }
}

impl std::error::Error for InputError {}

/// One row.
#[derive(Debug, Clone)]
pub struct Record {
    source: Arc<str>,
    line: u64,
    names: Arc<[String]>,
    values: Vec<Option<String>>,
}

impl Record {
    /// A row of these columns; names and values in the same order.
    pub fn new(source: Arc<str>, line: u64, names: Arc<[String]>, values: Vec<Option<String>>) -> Self {
        Self { source, line, names, values }
    }

    /// The names of the columns.
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// An error about a column of this row.
    pub fn error(&self, column: &str, reason: impl Into<String>) -> InputError {
        InputError {
            source: Arc::clone(&self.source),
            line: Some(self.line),
            column: Some(column.to_owned()),
            reason: reason.into(),
        }
    }

    /// The column's text; `None` when there is no such column, or nothing in it. What databases write for "nothing"
    /// (`\N`, `NULL`) is nothing too.
    pub fn text(&self, column: &str) -> Option<&str> {
        let index = self.names.iter().position(|name| name == column)?;
        let text = self.values.get(index)?.as_deref()?.trim();
        (!matches!(text, "" | "\\N" | "NULL")).then_some(text)
    }

    /// The column's text.
    ///
    /// # Errors
    /// The column is missing or empty.
    pub fn required(&self, column: &str) -> Result<&str, InputError> {
        self.text(column).ok_or_else(|| {
            let there = self.names.iter().any(|name| name == column);
            self.error(column, if there { "is empty" } else { "the column is missing" })
        })
    }

    /// The column as a whole number, `None` when it is empty.
    ///
    /// # Errors
    /// It is something else, or negative.
    pub fn whole(&self, column: &str) -> Result<Option<u64>, InputError> {
        self.parsed(column, "a whole number, 0 or more")
    }

    /// The column as a number of at least 0 (with decimals), `None` when it is empty.
    ///
    /// # Errors
    /// It is something else.
    pub fn decimal(&self, column: &str) -> Result<Option<f64>, InputError> {
        let what = "a number, 0 or more";
        match self.parsed::<f64>(column, what)? {
            Some(number) if !number.is_finite() || number < 0.0 => Err(self.unusable(column, what)),
            number => Ok(number),
        }
    }

    /// The column in seconds, as milliseconds; `None` when it is empty.
    ///
    /// # Errors
    /// It is no number of seconds, or more than a thousand years.
    pub fn seconds_as_ms(&self, column: &str) -> Result<Option<u64>, InputError> {
        const MOST_SECONDS: f64 = 3.2e10;
        match self.decimal(column)? {
            Some(seconds) if seconds > MOST_SECONDS => Err(self.error(column, "is more than a thousand years")),
            seconds => Ok(seconds.map(|seconds| (seconds * 1_000.0).round() as u64)),
        }
    }

    /// The column as a moment, in milliseconds since 1970; `None` when it is empty. A time without offset is UTC, as in
    /// Nova's tables.
    ///
    /// # Errors
    /// It is no moment.
    pub fn moment_ms(&self, column: &str) -> Result<Option<i64>, InputError> {
        let Some(text) = self.text(column) else { return Ok(None) };
        let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
        });
        match moment {
            Some(moment) => Ok(Some(moment.as_millisecond())),
            None => Err(self.unusable(column, "a time such as 2026-01-31 12:00:00")),
        }
    }

    fn parsed<T: FromStr>(&self, column: &str, what: &str) -> Result<Option<T>, InputError> {
        match self.text(column) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.unusable(column, what)),
        }
    }

    fn unusable(&self, column: &str, what: &str) -> InputError {
        let text: String = self.text(column).unwrap_or_default().chars().take(40).collect();
        self.error(column, format!("'{text}' is not {what}"))
    }
}

/// Rows, one after the other; an error ends them.
pub type Records = Box<dyn Iterator<Item = Result<Record, InputError>>>;

/// Opens a source of rows: a file, or a database when `source` is a URL (then `table` says which rows).
///
/// # Errors
/// The source can't be opened or has no header.
pub fn open(source: &str, table: &'static database::Table) -> Result<Records, InputError> {
    if database::is_url(source) {
        return database::open(source, table);
    }
    open_file(source)
}

/// Opens a file of rows.
///
/// # Errors
/// It can't be opened or has no header.
pub fn open_file(source: &str) -> Result<Records, InputError> {
    let file = File::open(source).map_err(|error| InputError::whole(source, format!("cannot be read: {error}")))?;
    read(source, file)
}

/// Reads rows from a text: JSON lines when it begins with `{`, else CSV with a header.
///
/// # Errors
/// The first line can't be read.
pub fn read(source: &str, text: impl Read + 'static) -> Result<Records, InputError> {
    let mut text = BufReader::new(text);
    let source: Arc<str> = source.into();
    let start =
        text.fill_buf().map_err(|error| InputError::whole(Arc::clone(&source), format!("cannot be read: {error}")))?;
    match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(InputError::whole(source, "is empty: the first line must name the columns")),
        Some(b'{') => Ok(json_lines(source, text)),
        Some(_) => csv_lines(source, text),
    }
}

fn csv_lines(source: Arc<str>, text: impl Read + 'static) -> Result<Records, InputError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(text);
    let header = reader.headers().map_err(|error| csv_error(&source, &error))?;
    let names: Vec<String> = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    if let Some(double) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(InputError::at_line(&source, 1, format!("the column '{}' is named twice", double.1)));
    }
    let names: Arc<[String]> = names.into();
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(|error| csv_error(&source, &error))?;
        let line = record.position().map_or(0, csv::Position::line);
        let values = record.iter().map(|value| Some(value.to_owned())).collect();
        Ok(Record::new(Arc::clone(&source), line, Arc::clone(&names), values))
    })))
}

fn csv_error(source: &Arc<str>, error: &csv::Error) -> InputError {
    let reason = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} columns, the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        csv::ErrorKind::Io(error) => format!("cannot be read: {error}"),
        _ => error.to_string(),
    };
    let line = error.position().map(csv::Position::line);
    InputError { source: Arc::clone(source), line, column: None, reason }
}

fn json_lines(source: Arc<str>, text: impl BufRead + 'static) -> Records {
    let lines = (1..).zip(text.lines());
    let full = lines.filter(|(_, line)| line.as_ref().map_or(true, |line| !line.trim().is_empty()));
    Box::new(full.map(move |(number, line)| {
        let line = line.map_err(|error| InputError::at_line(&source, number, format!("cannot be read: {error}")))?;
        json_record(&source, number, &line)
    }))
}

fn json_record(source: &Arc<str>, number: u64, line: &str) -> Result<Record, InputError> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).map_err(|error| {
        InputError::at_line(source, number, format!("is not a JSON object: {error}").replace(" at line 1", " at"))
    })?;
    let (names, values): (Vec<String>, Vec<Option<String>>) = object
        .into_iter()
        .map(|(name, value)| {
            let text = match value {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => Some(text),
                other => Some(other.to_string()),
            };
            (name, text)
        })
        .unzip();
    Ok(Record::new(Arc::clone(source), number, names.into(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Record>, InputError> {
        read("trace.csv", std::io::Cursor::new(text.to_owned()))?.collect()
    }

    #[test]
    fn csv_and_json_lines_give_the_same_rows() {
        let csv = all("name,cores\n\"a, b\",4\n,\n").unwrap();
        let json = all("{\"name\": \"a, b\", \"cores\": 4}\n\n{\"name\": null, \"cores\": \"\"}\n").unwrap();
        for rows in [&csv, &json] {
            assert_eq!(rows[0].text("name"), Some("a, b"));
            assert_eq!(rows[0].whole("cores").unwrap(), Some(4));
            assert_eq!(rows[1].text("name"), None);
            assert_eq!(rows[1].whole("cores").unwrap(), None);
        }
        assert_eq!(json[1].error("name", "x").line, Some(3));
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let rows = all("at,cores\n1,four\n\"2\n3\",-1\n").unwrap();
        assert_eq!(
            rows[0].whole("cores").unwrap_err().to_string(),
            "trace.csv:2: cores: 'four' is not a whole number, 0 or more"
        );
        assert_eq!(rows[1].decimal("cores").unwrap_err().line, Some(3));
        assert_eq!(rows[0].required("zone").unwrap_err().to_string(), "trace.csv:2: zone: the column is missing");
        let error = |text| all(text).unwrap_err().to_string();
        assert_eq!(error("a,b\n1,2\n3\n"), "trace.csv:3: has 1 columns, the header has 2");
        assert_eq!(error("a,a\n"), "trace.csv:1: the column 'a' is named twice");
        assert_eq!(error(" \n"), "trace.csv: is empty: the first line must name the columns");
        assert!(
            error("{\"a\": 1}\n{\"a\": }\n").starts_with("trace.csv:2: is not a JSON object: expected value at column")
        );
        let missing = open("/nonexistent/t.csv", &database::COMPUTE_NODES).err().unwrap().to_string();
        assert!(missing.starts_with("/nonexistent/t.csv: cannot be read: "), "{missing}");
    }

    #[test]
    fn times_are_read_in_the_forms_of_databases() {
        let text = "t\n2026-01-02 00:00:00\n2026-01-02T00:00:00.250Z\n2026-01-02 02:00:00+02\nNULL\nsoon\n";
        let rows = all(text).unwrap();
        let moment = |row: usize| rows[row].moment_ms("t");
        assert_eq!(moment(0).unwrap(), Some(1_767_312_000_000));
        assert_eq!(moment(1).unwrap(), Some(1_767_312_000_250));
        assert_eq!(moment(2).unwrap(), moment(0).unwrap());
        assert_eq!(moment(3).unwrap(), None);
        assert!(moment(4).unwrap_err().to_string().contains("t: 'soon' is not a time"));
        let seconds = all("s\n1.5\ninf\n1e30\n").unwrap();
        assert_eq!(seconds[0].seconds_as_ms("s").unwrap(), Some(1_500));
        assert!(seconds[1].seconds_as_ms("s").is_err() && seconds[2].seconds_as_ms("s").is_err());
    }
}
