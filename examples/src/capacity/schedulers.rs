//! Schedulers by name, with options: `least_load`, `least_load,load_source=memory`.

use nova_sched::{SCHEDULERS, Scheduler, SchedulerOptions, TieBreak, by_name};

/// A scheduler as it was asked for.
pub struct Named {
    /// What was asked: the name with its options. It stands above the results.
    pub label: String,
    /// The algorithm.
    pub scheduler: Box<dyn Scheduler>,
}

/// The options that a scheduler may be given, with what they say.
const OPTIONS: &str = "default_zone, load_source, max_cores, tie_break";

/// Makes the schedulers asked for; all there are when none is.
///
/// # Errors
/// A name or option that isn't known, or one given twice.
pub fn parse(asked: &[String]) -> Result<Vec<Named>, String> {
    let all: Vec<String> = SCHEDULERS.iter().map(|name| (*name).to_owned()).collect();
    let asked = if asked.is_empty() { &all } else { asked };
    let mut made: Vec<Named> = Vec::new();
    for label in asked {
        if made.iter().any(|other| other.label == *label) {
            return Err(format!("--scheduler {label}: is given twice"));
        }
        let scheduler = make(label).map_err(|reason| format!("--scheduler {label}: {reason}"))?;
        made.push(Named { label: label.clone(), scheduler });
    }
    Ok(made)
}

fn make(label: &str) -> Result<Box<dyn Scheduler>, String> {
    let mut parts = label.split(',');
    let name = parts.next().unwrap_or_default();
    let mut options = SchedulerOptions::default();
    for part in parts {
        let (option, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is not OPTION=VALUE"))?;
        match option {
            "default_zone" => options.default_zone = Some(value.to_owned()),
            "load_source" => options.load_source = Some(value.to_owned()),
            "max_cores" => {
                let cores = value.parse().map_err(|_| format!("max_cores: '{value}' is not a whole number"))?;
                options.max_cores = Some(cores);
            }
            "tie_break" => options.tie_break = tie_break(value)?,
            _ => return Err(format!("there is no option '{option}' (known: {OPTIONS})")),
        }
    }
    by_name(name, &options).map_err(|error| error.to_string())
}

fn tie_break(value: &str) -> Result<TieBreak, String> {
    match value {
        "random" => Ok(TieBreak::Random),
        "name" => Ok(TieBreak::Name),
        _ => Err(format!("tie_break: '{value}' is neither random nor name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(asked: &[&str]) -> Result<Vec<(String, &'static str)>, String> {
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
        Ok(parse(&asked)?.into_iter().map(|named| (named.label, named.scheduler.name())).collect())
    }

    #[test]
    fn every_scheduler_there_is_can_be_asked_for() {
        let all: Vec<&str> = names(&[]).unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(all, SCHEDULERS);
        let two = names(&["least_load", "least_load,load_source=memory,tie_break=name,max_cores=8"]).unwrap();
        assert_eq!(two[1], ("least_load,load_source=memory,tie_break=name,max_cores=8".to_owned(), "least_load"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |label: &str| names(&[label]).unwrap_err();
        assert!(error("chance").starts_with("--scheduler chance: there is no scheduler `chance` (known: random"));
        assert_eq!(error("random,x"), "--scheduler random,x: 'x' is not OPTION=VALUE");
        assert!(error("random,x=1").contains("there is no option 'x' (known: default_zone"));
        assert!(error("least_load,max_cores=x").ends_with("max_cores: 'x' is not a whole number"));
        assert!(error("least_load,tie_break=x").ends_with("tie_break: 'x' is neither random nor name"));
        assert_eq!(names(&["random", "random"]).unwrap_err(), "--scheduler random: is given twice");
    }
}
