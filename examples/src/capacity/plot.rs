//! The course of a replay as an SVG: a panel per figure, a line per scheduler.

use std::fmt::{Display, Write as _};

use super::outcome::{Outcome, Sample};
use super::report::duration;

const WIDTH: f64 = 960.0;
const PANEL_HEIGHT: f64 = 170.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
/// Between panels: the time's labels and the next title.
const GAP: f64 = 52.0;
/// Told apart also by those who see few colours (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// One panel.
struct Panel {
    title: String,
    is_share: bool,
    value: fn(&Sample) -> f64,
    /// Drawn as a thin line beside the value.
    bound: Option<fn(&Sample) -> f64>,
}

fn panels(with_queue: bool) -> Vec<Panel> {
    let share = |title: &str, value| Panel { title: title.to_owned(), is_share: true, value, bound: None };
    let count = |title: &str, value| Panel { title: title.to_owned(), is_share: false, value, bound: None };
    let mut panels = vec![
        share("cores handed out", |sample| sample.used[0]),
        share("memory handed out", |sample| sample.used[1]),
        share("disk handed out", |sample| sample.used[2]),
        Panel {
            bound: Some(|sample| sample.hosts_bound as f64),
            ..count("hosts in use (thin: the fewest that could hold the same)", |sample| sample.hosts_used as f64)
        },
        share("free cores that the commonest flavor can't use", |sample| sample.unusable[0]),
        share("free memory that the commonest flavor can't use", |sample| sample.unusable[1]),
        count("requests turned away so far", |sample| sample.rejected as f64),
    ];
    if with_queue {
        panels.push(count("requests that wait", |sample| sample.waiting as f64));
    }
    panels
}

/// Draws the outcomes; all are over the same time.
pub fn svg(title: &str, outcomes: &[Outcome]) -> String {
    let panels = panels(outcomes.iter().any(|outcome| outcome.wait.is_some()));
    let height = TOP + panels.len() as f64 * (PANEL_HEIGHT + GAP);
    let mut drawing = Drawing { text: String::new(), end_s: end_s(outcomes) };
    drawing.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    ));
    drawing.line(format_args!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>"));
    drawing.label(LEFT, 20.0, "start", format_args!("<tspan font-weight=\"bold\">{}</tspan>", escaped(title)));
    drawing.legend(outcomes);
    for (number, panel) in panels.iter().enumerate() {
        drawing.panel(panel, TOP + number as f64 * (PANEL_HEIGHT + GAP), outcomes);
    }
    drawing.line("</svg>");
    drawing.text
}

fn end_s(outcomes: &[Outcome]) -> f64 {
    let ends = outcomes.iter().filter_map(|outcome| outcome.series.last()).map(|sample| sample.time_s);
    ends.fold(0.0, f64::max)
}

struct Drawing {
    text: String,
    end_s: f64,
}

impl Drawing {
    fn line(&mut self, text: impl Display) {
        // Writing to a text can't fail.
        let _ = writeln!(self.text, "{text}");
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: impl Display) {
        self.line(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    fn legend(&mut self, outcomes: &[Outcome]) {
        let width = (WIDTH - LEFT - RIGHT) / outcomes.len().max(1) as f64;
        for (number, outcome) in outcomes.iter().enumerate() {
            let x = LEFT + number as f64 * width;
            self.line(format_args!(
                "<line x1=\"{x:.1}\" y1=\"34\" x2=\"{:.1}\" y2=\"34\" stroke=\"{}\" stroke-width=\"3\"/>",
                x + 24.0,
                colour(number)
            ));
            self.label(x + 30.0, 38.0, "start", escaped(&outcome.scheduler));
        }
    }

    fn panel(&mut self, panel: &Panel, top: f64, outcomes: &[Outcome]) {
        let values = outcomes.iter().flat_map(|outcome| &outcome.series);
        let most = values.map(|sample| panel.bound.map_or(0.0, |bound| bound(sample)).max((panel.value)(sample)));
        let axis = if panel.is_share { Axis { most: 1.0, step: 0.25 } } else { Axis::up_to(most.fold(0.0, f64::max)) };
        self.label(LEFT, top - 8.0, "start", escaped(&panel.title));
        self.grid(&axis, panel.is_share, top);
        for (number, outcome) in outcomes.iter().enumerate() {
            if let Some(bound) = panel.bound {
                self.course(outcome, bound, &axis, top, (number, 0.7));
            }
            // Earlier lines are wider, so that they are seen below those that run the same way.
            let width = 1.5 + 3.0 * (outcomes.len() - 1 - number) as f64 / outcomes.len() as f64;
            self.course(outcome, panel.value, &axis, top, (number, width));
        }
    }

    fn grid(&mut self, axis: &Axis, is_share: bool, top: f64) {
        let right = WIDTH - RIGHT;
        for tick in 0..=axis.ticks() {
            let value = axis.step * f64::from(tick);
            let y = axis.y(value, top);
            self.line(format_args!("<path d=\"M{LEFT:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>"));
            match is_share {
                true => self.label(LEFT - 6.0, y + 4.0, "end", format_args!("{:.0} %", value * 100.0)),
                false => self.label(LEFT - 6.0, y + 4.0, "end", value),
            }
        }
        let step_s = time_step(self.end_s);
        for tick in 0..=(self.end_s / step_s) as u32 {
            let time_s = step_s * f64::from(tick);
            self.label(self.x(time_s), top + PANEL_HEIGHT + 16.0, "middle", duration(time_s));
        }
    }

    fn course(&mut self, outcome: &Outcome, value: fn(&Sample) -> f64, axis: &Axis, top: f64, line: (usize, f64)) {
        let mut points = String::new();
        for sample in &outcome.series {
            let _ = write!(points, "{:.1},{:.1} ", self.x(sample.time_s), axis.y(value(sample), top));
        }
        let (stroke, width, points) = (colour(line.0), line.1, points.trim_end());
        self.line(format_args!(
            "<polyline fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width:.1}\" points=\"{points}\"/>"
        ));
    }

    fn x(&self, time_s: f64) -> f64 {
        let part = if self.end_s > 0.0 { time_s / self.end_s } else { 0.0 };
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }
}

/// From 0 to `most`, in round steps.
#[derive(Debug, PartialEq)]
struct Axis {
    most: f64,
    step: f64,
}

impl Axis {
    /// Whole steps of 1, 2 or 5 times a power of ten, at most five of them.
    fn up_to(value: f64) -> Self {
        let mut step = 1.0;
        let mut factors = [2.0, 2.5, 2.0].into_iter().cycle();
        while step * 5.0 < value {
            step *= factors.next().unwrap_or(2.0);
        }
        Self { most: ((value / step).ceil() * step).max(step), step }
    }

    fn ticks(&self) -> u32 {
        (self.most / self.step).round() as u32
    }

    fn y(&self, value: f64, top: f64) -> f64 {
        top + PANEL_HEIGHT * (1.0 - value / self.most)
    }
}

/// Round times, eight of them at most.
fn time_step(end_s: f64) -> f64 {
    const STEPS_S: [f64; 14] = [
        1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
        172_800.0,
    ];
    let fits = |step: &f64| end_s / step <= 8.0;
    // Beyond that whole days.
    STEPS_S.into_iter().find(fits).unwrap_or_else(|| (end_s / 8.0 / 86_400.0).ceil() * 86_400.0)
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn escaped(text: &str) -> String {
    let safe = text.chars().filter(|character| !character.is_control());
    safe.fold(String::new(), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(Axis::up_to(0.0), Axis { most: 1.0, step: 1.0 });
        assert_eq!(Axis::up_to(5.0), Axis { most: 5.0, step: 1.0 });
        assert_eq!(Axis::up_to(37.0), Axis { most: 40.0, step: 10.0 });
        assert_eq!(Axis::up_to(230.0), Axis { most: 250.0, step: 50.0 });
        assert_eq!(Axis::up_to(9_117.0), Axis { most: 10_000.0, step: 2_000.0 });
        let axis = Axis::up_to(40.0);
        assert_eq!((axis.y(0.0, 10.0), axis.y(40.0, 10.0), axis.ticks()), (10.0 + PANEL_HEIGHT, 10.0, 4));
    }

    #[test]
    fn times_are_round() {
        assert_eq!([0.0, 30.0, 43_000.0, 30.0 * 86_400.0].map(time_step), [1.0, 5.0, 7_200.0, 4.0 * 86_400.0]);
    }

    #[test]
    fn names_cannot_break_the_drawing() {
        assert_eq!(escaped("a<b & \"c\"\u{7}"), "a&lt;b &amp; &quot;c&quot;");
    }
}
