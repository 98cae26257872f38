//! Values: from text, to text, and into the type of a handle.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{OptionDecl, OptionKind};

/// A host and a port: where to listen, or whom to call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Address {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "host:port, [address]:port for IPv6".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) || port.starts_with('+') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

/// A value of an option.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Not set.
    Absent,
    /// A text, choice or URL.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Boolean(bool),
    /// Several texts.
    List(Vec<String>),
    /// A time.
    Seconds(Duration),
    /// Host and port.
    Address(Address),
    /// A path.
    Path(PathBuf),
}

/// A type that a [`Value`] can be read into.
pub trait FromValue: Sized {
    /// The value, `None` if it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $variant:ident,)+) => { $(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant(inner) => Some(inner.clone()),
                    _ => None,
                }
            }
        }
    )+ };
}

from_value! {
    String: Text,
    i64: Integer,
    f64: Float,
    bool: Boolean,
    Vec<String>: List,
    Duration: Seconds,
    Address: Address,
    PathBuf: Path,
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Absent => Some(None),
            other => T::from_value(other).map(Some),
        }
    }
}

impl OptionDecl {
    /// What is allowed, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match self.kind {
            OptionKind::String => "a text".to_owned(),
            OptionKind::Integer { min, max } => format!("a whole number {}{unit}", range(min, max, i64::MAX)),
            OptionKind::Float { min, max } => format!("a number {}{unit}", range(min, max, f64::MAX)),
            OptionKind::Boolean => "true or false".to_owned(),
            OptionKind::Choice(words) => words.join(", "),
            OptionKind::List => "texts between commas".to_owned(),
            OptionKind::Words => "texts between spaces".to_owned(),
            OptionKind::MultiString => "a text; the line may be repeated".to_owned(),
            OptionKind::Seconds { min, max } => format!("a number {}{unit}", range(min, max, u64::MAX)),
            OptionKind::Url([]) => "a URL".to_owned(),
            OptionKind::Url(schemes) => format!("a URL that starts with {}", alternatives(schemes)),
            OptionKind::Address => "host:port, [address]:port for IPv6".to_owned(),
            OptionKind::Path => "a path".to_owned(),
        }
    }

    /// Reads the texts that were assigned: one, or several for a repeatable option. `home` is what `~/` means.
    ///
    /// # Errors
    ///
    /// What is allowed, in words.
    pub(super) fn read(&self, texts: &[String], home: Option<&str>) -> Result<Value, String> {
        let last = texts.last().map_or("", String::as_str);
        if self.optional && last.is_empty() {
            return Ok(Value::Absent);
        }
        match self.kind {
            OptionKind::MultiString => Ok(Value::List(texts.iter().filter(|text| !text.is_empty()).cloned().collect())),
            OptionKind::Path => expand(last, home).map(Value::Path),
            _ => self.read_one(last).ok_or_else(|| self.allowed()),
        }
    }

    fn read_one(&self, text: &str) -> Option<Value> {
        match self.kind {
            OptionKind::String | OptionKind::MultiString | OptionKind::Path => Some(Value::Text(text.to_owned())),
            OptionKind::Integer { min, max } => {
                text.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Integer)
            }
            OptionKind::Float { min, max } => {
                text.parse().ok().filter(|number| (min..=max).contains(number)).map(Value::Float)
            }
            OptionKind::Boolean => boolean(text).map(Value::Boolean),
            OptionKind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            OptionKind::List => Some(Value::List(items(text.split(',')))),
            OptionKind::Words => Some(Value::List(items(text.split_whitespace()))),
            OptionKind::Seconds { min, max } => seconds(text, min, max).map(Value::Seconds),
            OptionKind::Url(schemes) => is_url(text, schemes).then(|| Value::Text(text.to_owned())),
            OptionKind::Address => text.parse().ok().map(Value::Address),
        }
    }

    /// The value as a file would say it, with `$` as it is.
    pub(super) fn write(&self, value: &Value) -> String {
        match value {
            Value::Absent => String::new(),
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(yes) => yes.to_string(),
            Value::List(texts) => texts.join(match self.kind {
                OptionKind::Words => " ",
                OptionKind::MultiString => "\n",
                _ => ", ",
            }),
            Value::Seconds(time) => time.as_secs_f64().to_string(),
            Value::Address(address) => address.to_string(),
            Value::Path(path) => path.display().to_string(),
        }
    }

    /// A text of this option as it may be shown.
    pub(super) fn masked(&self, text: &str) -> String {
        match self.kind {
            _ if text.is_empty() => String::new(),
            OptionKind::Url(_) if !self.secret || text.contains("://") => without_password(text),
            _ if self.secret => "***".to_owned(),
            _ => text.to_owned(),
        }
    }
}

fn range<N: fmt::Display + PartialEq>(min: N, max: N, unbounded: N) -> String {
    if max == unbounded { format!("of at least {min}") } else { format!("from {min} to {max}") }
}

fn alternatives(schemes: &[&str]) -> String {
    schemes.iter().map(|scheme| format!("{scheme}:")).collect::<Vec<_>>().join(", ")
}

fn items<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<String> {
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn seconds(text: &str, min: u64, max: u64) -> Option<Duration> {
    let time = match text.parse() {
        Ok(whole) => Duration::from_secs(whole),
        Err(_) => Duration::try_from_secs_f64(text.parse().ok()?).ok()?,
    };
    (Duration::from_secs(min)..=Duration::from_secs(max)).contains(&time).then_some(time)
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, _)) = text.split_once(':') else { return false };
    let word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let known = schemes.is_empty() || schemes.contains(&scheme);
    known && !scheme.is_empty() && scheme.chars().all(word) && !text.contains(char::is_whitespace)
}

fn expand(text: &str, home: Option<&str>) -> Result<PathBuf, String> {
    match (text.strip_prefix("~/"), home) {
        _ if text.is_empty() => Err("a path".to_owned()),
        (None, _) if text != "~" => Ok(PathBuf::from(text)),
        (_, None) => Err("a path without '~', as HOME is not set".to_owned()),
        (rest, Some(home)) => Ok(PathBuf::from(home).join(rest.unwrap_or_default())),
    }
}

/// Hides the password of a URL: behind the user's name, and in a query.
fn without_password(text: &str) -> String {
    let shown = match text.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((user_info, host)))) => match user_info.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
            None => text.to_owned(),
        },
        Some((_, None)) | None => text.to_owned(),
    };
    let Some((before, after)) = shown.split_once("password=") else { return shown };
    let rest = after.find('&').map_or("", |end| &after[end..]);
    format!("{before}password=***{rest}")
}
