//! The planning tool, on the files that come with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::program;

const CAPACITY: &str = env!("CARGO_BIN_EXE_capacity");

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("capacity").join(name)
}

fn capacity(arguments: &[&str]) -> Output {
    program(CAPACITY).args(arguments).output().unwrap()
}

/// On the example fleet; standard output of a run that ends well.
fn planned(arguments: &[&str]) -> String {
    let fleet = example("fleet.ini");
    let output = capacity(&[&["--fleet", fleet.to_str().unwrap()], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A bar is for terminals.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all elements, in order; panics when the text is no XML.
fn elements(xml: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(xml);
    let mut names = Vec::new();
    let mut open = 0;
    loop {
        use quick_xml::events::Event;
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(element) => {
                open += 1;
                names.push(element.name().as_ref().to_owned());
            }
            Event::Empty(element) => names.push(element.name().as_ref().to_owned()),
            Event::End(_) => open -= 1,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    names
}

#[test]
fn three_schedulers_are_compared_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (plot, series) = (folder.path().join("plot.svg"), folder.path().join("series.csv"));
    let trace = example("trace.csv");
    let schedulers = ["random", "availability_zone", "least_load,load_source=memory"];
    let mut arguments = vec!["--trace", trace.to_str().unwrap(), "--samples", "50"];
    arguments.extend(schedulers.iter().flat_map(|name| ["--scheduler", name]));
    arguments.extend(["--plot", plot.to_str().unwrap(), "--series", series.to_str().unwrap()]);
    let table = planned(&arguments);

    let heading = table.lines().find(|line| line.trim_start().starts_with("random")).unwrap();
    assert_eq!(heading.split_whitespace().collect::<Vec<_>>(), schedulers);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{table}"));
        line.trim_start_matches(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for (placed, away) in row("requests placed").iter().zip(row("requests turned away")) {
        assert_eq!(placed.parse::<u64>().unwrap() + away.parse::<u64>().unwrap(), 596, "{table}");
    }
    assert!(table.contains("24 hosts in 2 zone(s)"), "{table}");

    let drawing = elements(&fs::read_to_string(&plot).unwrap());
    assert_eq!(drawing[0], "svg");
    // Seven panels with a line per scheduler, and the bound in one of them.
    assert_eq!(drawing.iter().filter(|name| *name == "polyline").count(), 8 * 3);

    let rows = fs::read_to_string(&series).unwrap();
    assert_eq!(rows.lines().count(), 1 + 3 * 50);
    assert!(rows.starts_with("scheduler,time_s,live,vcpus_used,"), "{rows}");
}

#[test]
fn json_is_the_same_for_the_same_seed_and_the_trace_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("trace.csv");
    let generated =
        ["--generate", "--requests", "4000", "--days", "3", "--zone-percent", "20", "--json", "--samples", "10"];
    let once = planned(&[&generated[..], &["--seed", "3", "--trace-out", kept.to_str().unwrap()]].concat());
    assert_eq!(once, planned(&[&generated[..], &["--seed", "3"]].concat()));

    let report: Value = serde_json::from_str(&once).unwrap();
    let replayed = planned(&["--trace", kept.to_str().unwrap(), "--json", "--samples", "10", "--seed", "3"]);
    let replayed: Value = serde_json::from_str(&replayed).unwrap();
    assert_eq!(report["outcomes"], replayed["outcomes"]);
    assert_eq!(report["trace"]["sha256"], replayed["trace"]["sha256"]);
    assert_eq!(report["outcomes"].as_array().unwrap().len(), nova_sched::SCHEDULERS.len());

    let other: Value = serde_json::from_str(&planned(&[&generated[..], &["--seed", "4"]].concat())).unwrap();
    assert_ne!(report["trace"]["sha256"], other["trace"]["sha256"]);
}

#[test]
fn waiting_is_measured() {
    let trace = example("trace.csv");
    let json = planned(&[
        "--trace",
        trace.to_str().unwrap(),
        "--queue",
        "--max-wait",
        "3600",
        "--json",
        "--scheduler",
        "random",
    ]);
    let report: Value = serde_json::from_str(&json).unwrap();
    let outcome = &report["outcomes"][0];
    let count =
        |path: &str| outcome.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {outcome}"));
    assert_eq!(count("/wait/waited"), count("/wait/placed") + count("/wait/gave_up") + count("/wait/still_waiting"));
    assert!(count("/wait/waited") > 0);
    assert_eq!(count("/rejections/requests"), count("/wait/gave_up"));
    assert!(outcome.pointer("/wait/max_s").and_then(Value::as_f64).unwrap() <= 3_600.0);
}

#[test]
fn bad_input_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.csv");
    fs::write(&bad, "arrival_s,vcpus,memory_mb\n0,1,512\n5,one,512\n").unwrap();
    let (fleet, bad) = (example("fleet.ini"), bad.to_str().unwrap().to_owned());
    let refused = |arguments: &[&str]| {
        let output = capacity(&[&["--fleet", fleet.to_str().unwrap()], arguments].concat());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    let place = format!("capacity: {bad}:3: vcpus: 'one' is not a whole number, 0 or more\n");
    assert_eq!(refused(&["--trace", &bad]), place);
    assert!(refused(&["--generate", "--scheduler", "best"]).contains("there is no scheduler `best` (known: random"));
    assert!(refused(&["--generate", "--probe", "1,2"]).contains("--probe 1,2: is not VCPUS,MEMORY_MB,DISK_GB"));
    assert!(refused(&[]).contains("--trace <FILE>"));
    let output = capacity(&["--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("--request-specs <FILE|URL>"), "{help}");
}
