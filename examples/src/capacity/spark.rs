//! The course of a replay as text: a line per figure and scheduler, a character per stretch of time.

use std::fmt::Write as _;

use super::outcome::{Outcome, Sample};

const COLUMNS: usize = 60;
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the main figures, each from nothing to its largest value (shares: to all of it).
pub fn courses(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut figure = |title: &str, whole: Option<f64>, value: &dyn Fn(&Sample) -> f64| {
        let values = outcomes.iter().flat_map(|outcome| &outcome.series).map(value);
        let top = whole.unwrap_or_else(|| values.fold(0.0, f64::max));
        if top <= 0.0 {
            return;
        }
        let shown = if whole.is_some() { "100 %".to_owned() } else { top.to_string() };
        let _ = writeln!(text, "{title}, 0 to {shown}");
        for outcome in outcomes {
            let _ = writeln!(text, "  |{}| {}", line(&outcome.series, top, value), outcome.scheduler);
        }
    };
    figure("vcpus handed out", Some(1.0), &|sample| sample.used[0]);
    figure("memory_mb handed out", Some(1.0), &|sample| sample.used[1]);
    figure("disk_gb handed out", Some(1.0), &|sample| sample.used[2]);
    figure("hosts in use", None, &|sample| sample.hosts_used as f64);
    figure("requests turned away so far", None, &|sample| sample.rejected as f64);
    figure("requests that wait", None, &|sample| sample.waiting as f64);
    text
}

/// The largest value of each stretch: a short peak stays visible.
fn line(series: &[Sample], top: f64, value: &dyn Fn(&Sample) -> f64) -> String {
    let columns = COLUMNS.min(series.len());
    (0..columns)
        .map(|column| {
            let stretch = &series[series.len() * column / columns..series.len() * (column + 1) / columns];
            let most = stretch.iter().map(value).fold(0.0, f64::max);
            let level = (most / top * 8.0).ceil().clamp(0.0, 8.0);
            LEVELS[level as usize]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(share: f64) -> Sample {
        Sample {
            time_s: 0.0,
            live: 0,
            used: [share, 0.0, 0.0],
            unusable: [0.0; 3],
            stranded: [0; 3],
            room: 0,
            hosts_used: 0,
            hosts_bound: 0,
            rejected: 0,
            waiting: 0,
        }
    }

    #[test]
    fn a_line_rises_with_its_values() {
        let series: Vec<Sample> = [0.0, 0.01, 0.5, 1.0].map(sample).into();
        assert_eq!(line(&series, 1.0, &|sample| sample.used[0]), " ▁▄█");
        let long: Vec<Sample> = (0..600).map(|number| sample(f64::from(u8::from(number == 599)))).collect();
        let drawn = line(&long, 1.0, &|sample| sample.used[0]);
        assert_eq!(drawn.chars().count(), COLUMNS);
        assert!(drawn.ends_with(" █"), "{drawn}");
        assert_eq!(line(&[], 1.0, &|sample| sample.used[0]), "");
    }
}
