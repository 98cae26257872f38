//! The shape of the deployment: a compute host is not trusted with the database, so no conductor runs on one, unless
//! everything is one process.

use std::collections::BTreeSet;

use super::View;
use crate::check::Violation;

/// Services that know the database and its password.
const INSIDE: [&str; 2] = ["nova-conductor", "nova-scheduler"];

pub(super) fn shape(view: &View<'_>) -> Vec<Violation> {
    let (now, bounds) = (view.facts.now, &view.facts.bounds);
    if bounds.one_process {
        return Vec::new();
    }
    let up: Vec<_> =
        view.facts.store.services.iter().filter(|service| service.is_up(now, bounds.service_down_time)).collect();
    let compute: BTreeSet<_> = up.iter().filter(|s| s.binary == "nova-compute").map(|s| &s.host).collect();
    let inside = up.iter().filter(|s| INSIDE.contains(&s.binary.as_str()) && compute.contains(&s.host));
    inside
        .map(|service| {
            let subject = vec![("service", service.binary.clone()), ("host", service.host.to_string())];
            let text = "runs beside nova-compute: who breaks out of a guest there reads the database";
            Violation::new("config", subject, text).stamped([service.id.as_u128()])
        })
        .collect()
}
