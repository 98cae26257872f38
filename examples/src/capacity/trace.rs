//! A trace: who asked for what, when, and for how long.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use nova_sched::{Request, ResourceVector};
use sha2::{Digest, Sha256};

use super::records::{InputError, Record, Records};

/// No request asks for more instances at once: each is placed one after the other.
pub const MOST_INSTANCES: u64 = 10_000;

/// What a request asks for. Many requests share a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The flavor's name, or the amounts as `vcpus-memory_mb-disk_gb`.
    pub flavor: String,
    /// What each instance needs, in the order of [`DIMENSIONS`](super::DIMENSIONS).
    pub resources: [u64; 3],
    /// How many instances, all or none.
    pub count: u32,
    /// The zone asked for.
    pub zone: Option<String>,
    /// The architecture asked for.
    pub architecture: Option<String>,
    /// Traits that the host must have.
    pub required_traits: Vec<String>,
    /// Traits that the host must not have.
    pub forbidden_traits: Vec<String>,
}

impl Shape {
    /// One instance of that size, anywhere.
    pub fn new(resources: [u64; 3]) -> Self {
        let [vcpus, memory_mb, disk_gb] = resources;
        Self {
            flavor: format!("{vcpus}-{memory_mb}-{disk_gb}"),
            resources,
            count: 1,
            zone: None,
            architecture: None,
            required_traits: Vec::new(),
            forbidden_traits: Vec::new(),
        }
    }

    /// What the scheduler is asked.
    pub fn request(&self) -> Request {
        let mut request = Request::new(self.vector()).instances(self.count);
        request.zone.clone_from(&self.zone);
        request.architecture.clone_from(&self.architecture);
        request.required_traits.clone_from(&self.required_traits);
        request.forbidden_traits.clone_from(&self.forbidden_traits);
        request
    }

    /// What each instance needs.
    pub fn vector(&self) -> ResourceVector {
        self.resources.into()
    }
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes, in milliseconds from the beginning of the trace.
    pub at_ms: u64,
    /// How long its instances live once they are placed; `None`: to the end.
    pub lifetime_ms: Option<u64>,
    /// Its place in [`Trace::shapes`].
    pub shape: usize,
}

/// Requests in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Where it comes from.
    pub source: String,
    /// The different things asked for.
    pub shapes: Vec<Shape>,
    /// The requests.
    pub arrivals: Vec<Arrival>,
    /// What of the input could not be taken over.
    pub notes: Vec<String>,
}

/// Collects requests in any order.
#[derive(Debug, Default)]
pub struct TraceBuilder {
    shapes: Vec<Shape>,
    known: HashMap<Shape, usize>,
    arrivals: Vec<Arrival>,
}

impl TraceBuilder {
    /// Adds a request.
    pub fn add(&mut self, at_ms: u64, lifetime_ms: Option<u64>, shape: Shape) {
        let index = match self.known.get(&shape) {
            Some(index) => *index,
            None => {
                self.shapes.push(shape.clone());
                self.known.insert(shape, self.shapes.len() - 1);
                self.shapes.len() - 1
            }
        };
        self.arrivals.push(Arrival { at_ms, lifetime_ms, shape: index });
    }

    /// The trace; requests of the same time stay in the order in which they were added.
    ///
    /// # Errors
    /// There is no request.
    pub fn build(mut self, source: &str, notes: Vec<String>) -> Result<Trace, InputError> {
        if self.arrivals.is_empty() {
            return Err(InputError::whole(source, "has no request"));
        }
        self.arrivals.sort_by_key(|arrival| arrival.at_ms);
        Ok(Trace { source: source.to_owned(), shapes: self.shapes, arrivals: self.arrivals, notes })
    }
}

impl Trace {
    /// How many instances are asked for.
    pub fn instances(&self) -> u64 {
        self.arrivals.iter().map(|arrival| u64::from(self.shape(arrival).count)).sum()
    }

    /// What a request asks for.
    pub fn shape(&self, arrival: &Arrival) -> &Shape {
        &self.shapes[arrival.shape]
    }

    /// When the last request comes.
    pub fn last_arrival_ms(&self) -> u64 {
        self.arrivals.last().map_or(0, |arrival| arrival.at_ms)
    }

    /// The flavor that is asked for most often, by instances, with its size; of equals the smaller.
    pub fn commonest(&self) -> (String, [u64; 3]) {
        let mut counts: HashMap<(&str, [u64; 3]), u64> = HashMap::new();
        for arrival in &self.arrivals {
            let shape = self.shape(arrival);
            *counts.entry((shape.flavor.as_str(), shape.resources)).or_insert(0) += u64::from(shape.count);
        }
        let order =
            |((name, size), count): &((&str, [u64; 3]), u64)| (*count, std::cmp::Reverse((*size, name.to_string())));
        let commonest = counts.into_iter().max_by_key(order);
        commonest.map(|((name, size), _)| (name.to_owned(), size)).unwrap_or_default()
    }

    /// SHA-256 of the trace in its CSV form: two traces of one hash ask for the same.
    pub fn digest(&self) -> String {
        struct Into(Sha256);
        impl Write for Into {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut hash = Into(Sha256::new());
        match self.write_csv(&mut hash) {
            Ok(()) => hash.0.finalize().iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            // A hash takes all bytes; the type can't say so.
            Err(error) => error.to_string(),
        }
    }

    /// Writes the trace in the form that [`read`] reads.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        for arrival in &self.arrivals {
            let shape = self.shape(arrival);
            let [vcpus, memory_mb, disk_gb] = shape.resources;
            csv.write_record([
                seconds(arrival.at_ms),
                arrival.lifetime_ms.map(seconds).unwrap_or_default(),
                vcpus.to_string(),
                memory_mb.to_string(),
                disk_gb.to_string(),
                shape.count.to_string(),
                shape.zone.clone().unwrap_or_default(),
                shape.flavor.clone(),
                shape.architecture.clone().unwrap_or_default(),
                shape.required_traits.join(" "),
                shape.forbidden_traits.join(" "),
            ])?;
        }
        csv.flush()
    }
}

/// Milliseconds as seconds, exactly.
fn seconds(ms: u64) -> String {
    let (whole, rest) = (ms / 1_000, ms % 1_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}") }
}

const COLUMNS: [&str; 11] = [
    "arrival_s",
    "lifetime_s",
    "vcpus",
    "memory_mb",
    "disk_gb",
    "count",
    "zone",
    "flavor",
    "architecture",
    "required_traits",
    "forbidden_traits",
];

/// Reads a trace: a row per request, columns by name. `arrival_s`, `vcpus` and `memory_mb` must be there;
/// `lifetime_s` (empty: to the end), `disk_gb` (0), `count` (1), `zone`, `flavor`, `architecture`, `required_traits` and
/// `forbidden_traits` (separated by spaces) may be. Rows may come in any order.
///
/// A file with the columns `vmid, cpu, memory, time, type` is read as the published VM trace Huawei-East-1: memory in GiB,
/// time in seconds, type 0 for a creation and 1 for a deletion.
///
/// # Errors
/// A row that can't be used, with its line and column.
pub fn read(source: &str, rows: Records) -> Result<Trace, InputError> {
    let mut rows = rows.peekable();
    let is_published = matches!(rows.peek(), Some(Ok(row)) if row.names().iter().any(|name| name == "vmid"));
    if is_published {
        return read_creations_and_deletions(source, rows);
    }
    let mut builder = TraceBuilder::default();
    for row in rows {
        let row = row?;
        if let Some(unknown) = row.names().iter().find(|name| !COLUMNS.contains(&name.as_str())) {
            return Err(row.error(unknown, format!("no such column; there are {}", COLUMNS.join(", "))));
        }
        row.required("arrival_s")?;
        let at_ms = row.seconds_as_ms("arrival_s")?.unwrap_or(0);
        builder.add(at_ms, row.seconds_as_ms("lifetime_s")?, shape(&row)?);
    }
    builder.build(source, Vec::new())
}

fn shape(row: &Record) -> Result<Shape, InputError> {
    let needed = |column| row.required(column).and_then(|_| row.whole(column));
    let mut shape = Shape::new([
        needed("vcpus")?.unwrap_or(0),
        needed("memory_mb")?.unwrap_or(0),
        row.whole("disk_gb")?.unwrap_or(0),
    ]);
    if let Some(flavor) = row.text("flavor") {
        flavor.clone_into(&mut shape.flavor);
    }
    let count = row.whole("count")?.unwrap_or(1);
    if count == 0 || count > MOST_INSTANCES {
        return Err(row.error("count", format!("{count} is not between 1 and {MOST_INSTANCES}")));
    }
    shape.count = count as u32;
    let list = |column| row.text(column).map(|text| text.split_whitespace().map(str::to_owned).collect());
    shape.zone = row.text("zone").map(str::to_owned);
    shape.architecture = row.text("architecture").map(str::to_owned);
    shape.required_traits = list("required_traits").unwrap_or_default();
    shape.forbidden_traits = list("forbidden_traits").unwrap_or_default();
    Ok(shape)
}

fn read_creations_and_deletions(
    source: &str,
    rows: impl Iterator<Item = Result<Record, InputError>>,
) -> Result<Trace, InputError> {
    let mut created: HashMap<String, usize> = HashMap::new();
    let mut requests: Vec<(u64, Option<u64>, Shape)> = Vec::new();
    for row in rows {
        let row = row?;
        let id = row.required("vmid")?.to_owned();
        row.required("time")?;
        let at_ms = row.seconds_as_ms("time")?.unwrap_or(0);
        match row.required("type")? {
            "0" => {
                let needed = |column| row.required(column).and_then(|_| row.whole(column));
                let vcpus = needed("cpu")?.unwrap_or(0);
                let gib = needed("memory")?.unwrap_or(0);
                let mut shape = Shape::new([vcpus, gib.saturating_mul(1_024), 0]);
                shape.flavor = format!("{vcpus}U{gib}G");
                created.insert(id, requests.len());
                requests.push((at_ms, None, shape));
            }
            "1" => match created.remove(&id).and_then(|index| requests.get_mut(index)) {
                Some((start, lifetime, _)) if *start <= at_ms => *lifetime = Some(at_ms - *start),
                Some(_) => return Err(row.error("time", format!("'{id}' is deleted before it is created"))),
                None => return Err(row.error("vmid", format!("'{id}' is deleted but not there"))),
            },
            other => return Err(row.error("type", format!("'{other}' is neither 0 (created) nor 1 (deleted)"))),
        }
    }
    let mut builder = TraceBuilder::default();
    requests.into_iter().for_each(|(at_ms, lifetime, shape)| builder.add(at_ms, lifetime, shape));
    builder.build(source, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::records;

    fn trace(text: &str) -> Result<Trace, InputError> {
        read("t.csv", records::read("t.csv", std::io::Cursor::new(text.to_owned()))?)
    }

    #[test]
    fn rows_become_requests_in_order_of_time() {
        let text = "arrival_s,vcpus,memory_mb,lifetime_s,count,zone,flavor,required_traits\n\
                    20,1,1024,,3,,small,\n10.5,2,4096,60,,east,,SSD FAST\n";
        let trace = trace(text).unwrap();
        assert_eq!(trace.arrivals.iter().map(|arrival| arrival.at_ms).collect::<Vec<_>>(), [10_500, 20_000]);
        let shape = trace.shape(&trace.arrivals[0]);
        assert_eq!((shape.flavor.as_str(), shape.count, shape.zone.as_deref()), ("2-4096-0", 1, Some("east")));
        assert_eq!(shape.required_traits, ["SSD", "FAST"]);
        assert_eq!(trace.arrivals[0].lifetime_ms, Some(60_000));
        assert_eq!((trace.arrivals[1].lifetime_ms, trace.instances()), (None, 4));
        assert_eq!(trace.commonest(), ("small".to_owned(), [1, 1_024, 0]));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "arrival_s,vcpus,memory_mb,lifetime_s,zone,required_traits\n1.25,2,4096,60,\"a,b\",X Y\n2,1,1,,,\n";
        let before = trace(text).unwrap();
        let mut written = Vec::new();
        before.write_csv(&mut written).unwrap();
        let after = trace(&String::from_utf8(written).unwrap()).unwrap();
        assert_eq!(after, before);
        assert_eq!((after.digest(), after.digest().len()), (before.digest(), 64));
        assert_ne!(trace("arrival_s,vcpus,memory_mb\n1,2,4096\n").unwrap().digest(), before.digest());
    }

    #[test]
    fn bad_rows_are_named_with_file_line_and_column() {
        let error = |text: &str| trace(text).unwrap_err().to_string();
        let header = "arrival_s,vcpus,memory_mb,count";
        assert_eq!(
            error(&format!("{header}\n1,2,3,1\n1,two,3,1\n")),
            "t.csv:3: vcpus: 'two' is not a whole number, 0 or more"
        );
        assert_eq!(error(&format!("{header}\n-1,2,3,1\n")), "t.csv:2: arrival_s: '-1' is not a number, 0 or more");
        assert_eq!(error(&format!("{header}\n,2,3,1\n")), "t.csv:2: arrival_s: is empty");
        assert_eq!(error(&format!("{header}\n1,2,,1\n")), "t.csv:2: memory_mb: is empty");
        assert_eq!(error(&format!("{header}\n1,2,3,0\n")), "t.csv:2: count: 0 is not between 1 and 10000");
        assert_eq!(error(&format!("{header}\n1,2,3\n")), "t.csv:2: has 3 columns, the header has 4");
        assert_eq!(error(&format!("{header}\n")), "t.csv: has no request");
        assert_eq!(error("arrival_s,vcpus\n1,2\n"), "t.csv:2: memory_mb: the column is missing");
        assert!(
            error("arrival_s,vcpus,memory_mb,zones\n1,2,3,a\n")
                .starts_with("t.csv:2: zones: no such column; there are")
        );
    }

    #[test]
    fn the_published_form_has_creations_and_deletions() {
        let header = "vmid,cpu,memory,time,type";
        let trace_of = |rows: &str| trace(&format!("{header}\n{rows}"));
        let read = trace_of("0,1,2,0,0\n1,4,8,5,0\n0,1,2,9,1\n").unwrap();
        assert_eq!(read.shape(&read.arrivals[1]).resources, [4, 8_192, 0]);
        assert_eq!(read.shape(&read.arrivals[0]).flavor, "1U2G");
        assert_eq!(read.arrivals.iter().map(|arrival| arrival.lifetime_ms).collect::<Vec<_>>(), [Some(9_000), None]);
        let error = |rows: &str| trace_of(rows).unwrap_err().to_string();
        assert_eq!(error("7,1,2,0,1\n"), "t.csv:2: vmid: '7' is deleted but not there");
        assert_eq!(error("7,1,2,5,0\n7,1,2,4,1\n"), "t.csv:3: time: '7' is deleted before it is created");
        assert_eq!(error("7,1,2,5,2\n"), "t.csv:2: type: '2' is neither 0 (created) nor 1 (deleted)");
    }
}
