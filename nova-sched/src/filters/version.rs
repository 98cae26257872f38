//! Requirements on versions: `>=6.0, <8`.

/// Whether a hypervisor's version, as a number (7.2.22 is 7,002,022), meets all of the requirements. What can't be read
/// is not met.
pub(super) fn satisfies(version: u64, requirements: &str) -> bool {
    let version = [version / 1_000_000, version / 1_000 % 1_000, version % 1_000];
    requirements.split(',').map(str::trim).filter(|part| !part.is_empty()).all(|part| {
        let text = part.trim_start_matches(['<', '>', '=', '!']);
        let Some(asked) = parse(text.trim()) else { return false };
        match &part[..part.len() - text.len()] {
            "<" => version < asked,
            "<=" => version <= asked,
            "==" => version == asked,
            "!=" => version != asked,
            ">=" => version >= asked,
            ">" => version > asked,
            _ => false,
        }
    })
}

fn parse(text: &str) -> Option<[u64; 3]> {
    let mut version = [0; 3];
    let mut parts = text.split('.');
    for (slot, part) in version.iter_mut().zip(&mut parts) {
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::satisfies;

    #[test]
    fn all_requirements_must_be_met() {
        for (asked, verdict) in [
            (">=6.0", true),
            (">=6.0, <7", false),
            (">7.2.22", false),
            ("==7.2.22", true),
            ("!=7.2", true),
            ("<=7.2.22,>7", true),
            ("", true),
            ("7.2", false),
            (">=six", false),
            (">=1.2.3.4", false),
        ] {
            assert_eq!(satisfies(7_002_022, asked), verdict, "{asked}");
        }
    }
}
