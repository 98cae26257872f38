//! Sets of CPUs as Nova writes them: `0-3,^2,8` (nova/virt/hardware.py, `parse_cpu_spec`).

use std::collections::BTreeSet;

/// No machine has more CPUs; a set of more is a mistake, or an attack.
const MOST: u32 = 65_536;

/// Why a text is no set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid {what} expression '{text}'")]
pub struct CpuSetError {
    /// `range`, `inclusion` or `exclusion`.
    pub what: &'static str,
    /// The part of the text that is wrong.
    pub text: String,
}

/// Reads a set: numbers, ranges, and with `^` what is left out, whatever the order.
pub fn parse_cpu_set(text: &str) -> Result<BTreeSet<u32>, CpuSetError> {
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (set, rest) = match part.strip_prefix('^') {
            Some(rest) => (&mut without, rest),
            None => (&mut with, part),
        };
        let what = match (rest.contains('-'), part == rest) {
            (true, _) => "range",
            (false, true) => "inclusion",
            (false, false) => "exclusion",
        };
        let wrong = || CpuSetError { what, text: part.to_owned() };
        let number = |text: &str| text.trim().parse::<u32>().ok().filter(|cpu| *cpu < MOST).ok_or_else(wrong);
        let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        set.extend(first..=last);
    }
    Ok(&with - &without)
}

/// Writes a set with as few ranges as can be.
pub fn format_cpu_set(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_nova_does() {
        for (text, cpus, written) in [
            ("0-3,^2", vec![0, 1, 3], "0-1,3"),
            ("^2, 1-4 ,6", vec![1, 3, 4, 6], "1,3-4,6"),
            ("0-7,^2-5", vec![0, 1, 6, 7], "0-1,6-7"),
            ("", vec![], ""),
            (",3,,", vec![3], "3"),
        ] {
            let set = parse_cpu_set(text).unwrap();
            assert_eq!(set, cpus.into_iter().collect(), "{text}");
            assert_eq!(format_cpu_set(&set), written);
        }
    }

    #[test]
    fn what_is_no_set_is_told() {
        for (text, error) in [
            ("a", "Invalid inclusion expression 'a'"),
            ("1,^x", "Invalid exclusion expression '^x'"),
            ("3-1", "Invalid range expression '3-1'"),
            ("1-", "Invalid range expression '1-'"),
            ("-1", "Invalid range expression '-1'"),
            ("0-4294967295", "Invalid range expression '0-4294967295'"),
        ] {
            assert_eq!(parse_cpu_set(text).unwrap_err().to_string(), error);
        }
    }
}
