//! Has the host pass packets of version 6 on for its routers, and for nobody else.
//!
//! Since 6.17 Linux can be told so of an interface (`force_forwarding`). Before, `conf/all/forwarding` decides for all of
//! them, and makes routers of them that heed no advertisements. Then rules drop what is neither from a router nor to one, and
//! every other interface is told to be a host still; that the switch is ours shows in `conf/default/forwarding`, which only
//! who sets it afterwards finds at 0. If the operator has switched it on, passing on is the operator's to say.

use std::path::{Path, PathBuf};

use super::super::links::{LinkKind, LinkState, failed, run_in_namespace};
use super::super::services::Work;
use crate::network::PlumbingError;

const ROOT: &str = "/proc/sys/net/ipv6/conf";

/// Who sees to it that others' packets are not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarding {
    /// Nobody: nothing is passed on, or what the operator wants to be.
    #[default]
    Operators,
    /// The kernel, interface by interface.
    ByInterface,
    /// Rules.
    ByRules,
}

/// The kernel's switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switches {
    all: bool,
    default: bool,
    /// There is one for each interface.
    single: bool,
}

/// Who is to see to it, and what becomes of the switch for all, if anything.
const fn decide(now: Switches, wanted: bool) -> (Forwarding, Option<bool>) {
    match (wanted, now) {
        (_, Switches { all: true, default: true, .. } | Switches { all: true, single: true, .. }) => {
            (Forwarding::Operators, None)
        }
        (true, Switches { all: false, single: true, .. }) => (Forwarding::ByInterface, None),
        (true, Switches { all: false, single: false, .. }) => (Forwarding::ByRules, Some(true)),
        (true, Switches { all: true, default: false, single: false }) => (Forwarding::ByRules, None),
        (false, Switches { all: true, default: false, single: false }) => (Forwarding::Operators, Some(false)),
        (false, Switches { all: false, .. }) => (Forwarding::Operators, None),
    }
}

fn is_on(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

/// Writes what differs. An interface that is gone, or has no version 6, has no settings.
fn set(interface: &str, name: &str, value: &str) -> std::io::Result<()> {
    let path = Path::new(ROOT).join(interface).join(name);
    match std::fs::read_to_string(&path) {
        Ok(present) if present.trim() != value => std::fs::write(&path, value),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is to be done; nothing is done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) forwarding: Forwarding,
    switch: Option<bool>,
}

/// Looks at the kernel's switches. `wanted`: a router has ranges of version 6 that are reached from outside.
pub(super) async fn plan(work: &Work<'_>, wanted: bool) -> Result<Plan, PlumbingError> {
    let look = || {
        let root = Path::new(ROOT);
        Switches {
            all: is_on(&root.join("all/forwarding")),
            default: is_on(&root.join("default/forwarding")),
            single: root.join("all/force_forwarding").exists(),
        }
    };
    let (forwarding, switch) = decide(run_in_namespace(work.space(), look).await?, wanted);
    Ok(Plan { forwarding, switch })
}

/// Interfaces that packets come from or go to, all others of the host, and where it is remembered.
struct Interfaces {
    public: Option<String>,
    routers: Vec<String>,
    others: Vec<String>,
    memory: PathBuf,
}

/// Makes it so. The rules come before.
pub(super) async fn apply(
    work: &Work<'_>,
    plan: Plan,
    public: Option<&LinkState>,
    routers: &[String],
) -> Result<(), PlumbingError> {
    let memory = work.options.state.join("passes_on_6");
    if plan.forwarding == Forwarding::Operators && plan.switch.is_none() && !memory.exists() {
        return Ok(());
    }
    let public = public.map(|link| link.name.clone());
    let ours = |link: &LinkState| Some(&link.name) == public.as_ref() || routers.contains(&link.name);
    let links = work.host.list().await?;
    let others = links.iter().filter(|link| !ours(link) && link.name != "lo").map(|link| link.name.clone()).collect();
    let all = Interfaces { public, routers: routers.to_vec(), others, memory };
    let made = run_in_namespace(work.space(), move || all.apply(plan)).await?;
    made.map_err(|error| failed("have the host pass packets of version 6 on", error))
}

impl Interfaces {
    fn apply(&self, plan: Plan) -> std::io::Result<()> {
        match (plan.forwarding, plan.switch) {
            (Forwarding::ByInterface, _) => self.by_interface()?,
            (Forwarding::ByRules, switch) => self.by_rules(switch == Some(true))?,
            (Forwarding::Operators, switch) => {
                self.forget(None)?;
                if switch == Some(false) {
                    set("all", "forwarding", "0")?;
                }
            }
        }
        Ok(())
    }

    fn by_interface(&self) -> std::io::Result<()> {
        self.forget(self.public.as_deref())?;
        for interface in self.public.iter().chain(&self.routers) {
            set(interface, "force_forwarding", "1")?;
        }
        match &self.public {
            Some(public) => {
                std::fs::create_dir_all(self.memory.parent().unwrap_or(Path::new("/")))?;
                std::fs::write(&self.memory, public)
            }
            None => Ok(()),
        }
    }

    /// An interface that was the public one passes nothing on any more. Links to routers go by themselves.
    fn forget(&self, stays: Option<&str>) -> std::io::Result<()> {
        let Ok(before) = std::fs::read_to_string(&self.memory) else { return Ok(()) };
        // A name that this wrote; anything else leads nowhere.
        if stays != Some(before.as_str()) && !before.contains('/') && !before.starts_with('.') {
            set(&before, "force_forwarding", "0")?;
            std::fs::remove_file(&self.memory)?;
        }
        Ok(())
    }

    fn by_rules(&self, switch: bool) -> std::io::Result<()> {
        if switch {
            // Interfaces that have their ways by advertisements lose them the moment that any becomes a router's, unless
            // they are told to heed advertisements whatever they are.
            for interface in self.others.iter().chain(&self.public) {
                let path = Path::new(ROOT).join(interface).join("accept_ra");
                if is_on(&path) {
                    set(interface, "accept_ra", "2")?;
                }
            }
            set("all", "forwarding", "1")?;
            set("default", "forwarding", "0")?;
        }
        for interface in &self.others {
            set(interface, "forwarding", "0")?;
        }
        Ok(())
    }
}

/// Bridges of the host: their own frames may pass the rules for what is passed on, too.
pub(super) async fn bridges(work: &Work<'_>) -> Result<Vec<String>, PlumbingError> {
    let links = work.host.list().await?;
    let bridges = links.into_iter().filter(|link| matches!(link.kind, LinkKind::Bridge(_)));
    Ok(bridges.map(|link| link.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_that_the_operator_set_stays() {
        let now = |all, default, single| Switches { all, default, single };
        for single in [true, false] {
            for wanted in [true, false] {
                assert_eq!(decide(now(true, true, single), wanted), (Forwarding::Operators, None));
            }
            assert_eq!(decide(now(false, false, single), false), (Forwarding::Operators, None));
        }
        assert_eq!(decide(now(false, false, true), true), (Forwarding::ByInterface, None));
        assert_eq!(decide(now(false, false, false), true), (Forwarding::ByRules, Some(true)));
        assert_eq!(decide(now(true, false, false), true), (Forwarding::ByRules, None), "it is ours");
        assert_eq!(decide(now(true, false, false), false), (Forwarding::Operators, Some(false)));
    }
}
