//! The operators of extra specs (`nova/scheduler/filters/extra_specs_ops.py`).

/// Whether a value meets a requirement: `<operator> <value>...`, or the very value. Numbers that can't be read meet
/// nothing.
pub(crate) fn matches(value: &str, requirement: &str) -> bool {
    let mut words = requirement.split_whitespace();
    let operator = words.next().unwrap_or("");
    let rest: Vec<&str> = words.collect();
    let numbers = |compare: fn(f64, f64) -> bool| {
        let asked = rest.first().and_then(|word| word.parse().ok());
        matches!((value.trim().parse().ok(), asked), (Some(value), Some(asked)) if compare(value, asked))
    };
    let words = |compare: fn(&str, &str) -> bool| rest.first().is_some_and(|asked| compare(value, asked));
    match operator {
        // "=" is at least, for reasons of age.
        "=" | ">=" => numbers(|value, asked| value >= asked),
        "==" => numbers(|value, asked| value == asked),
        "!=" => numbers(|value, asked| value != asked),
        "<=" => numbers(|value, asked| value <= asked),
        "s==" => words(|value, asked| value == asked),
        "s!=" => words(|value, asked| value != asked),
        "s<" => words(|value, asked| value < asked),
        "s<=" => words(|value, asked| value <= asked),
        "s>" => words(|value, asked| value > asked),
        "s>=" => words(|value, asked| value >= asked),
        "<in>" => words(|value, asked| value.contains(asked)),
        "<all-in>" => !rest.is_empty() && rest.iter().all(|asked| value.contains(asked)),
        // <or> one <or> two <or> three
        "<or>" => rest.iter().step_by(2).any(|asked| *asked == value),
        _ => value == requirement,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn operators_are_novas() {
        // From nova/tests/unit/scheduler/filters/test_extra_specs_ops.py: the value, what is asked, the verdict.
        for (value, asked, verdict) in [
            ("1", "1", true),
            ("", "1", false),
            ("3", "1", false),
            ("222", "2", false),
            ("4", "> 2", false),
            ("123", "= 123", true),
            ("124", "= 123", true),
            ("34", "= 234", false),
            ("34", "=", false),
            ("123", "s== 123", true),
            ("1234", "s== 123", false),
            ("1234", "s!= 123", true),
            ("123", "s!= 123", false),
            ("1000", "s>= 234", false),
            ("234", "s< 1000", false),
            ("abc", "s<= abc", true),
            ("b", "s> a", true),
            ("1000", ">= 1000", true),
            ("999", ">= 1000", false),
            ("1000", "<= 1000", true),
            ("1001", "<= 1000", false),
            ("5", "== 5.0", true),
            ("5", "!= 6", true),
            ("five", "== 5", false),
            ("12311321", "<in> 11", true),
            ("12310321", "<in> 11", false),
            ("12", "<or> 11 <or> 12", true),
            ("13", "<or> 11 <or> 12", false),
            ("12", "<or> 12 <or>", true),
            ("aes mmx sse", "<all-in> aes mmx", true),
            ("aes sse", "<all-in> aes mmx", false),
            ("aes", "<all-in>", false),
        ] {
            assert_eq!(matches(value, asked), verdict, "`{value}` against `{asked}`");
        }
    }
}
