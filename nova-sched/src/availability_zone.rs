//! Random inside the asked zone.

use std::borrow::Cow;

use crate::place::place;
use crate::query::Query;
use crate::random::Draw;
use crate::request::ZoneTarget;
use crate::{HostTable, NoValidHost, Request, Scheduler, SchedulerRng, Selection};

/// Any host of the asked zone that fits; without a zone, of the default zone, and without that, of all.
///
/// This is the zone scheduler of Nova's first releases. The zone may also be written as `zone:host` or
/// `zone:host:node`, which forces the host: it must be there, up and have room, and nothing else is asked of it.
#[derive(Debug, Clone, Default)]
pub struct AvailabilityZoneScheduler {
    default_zone: Option<String>,
}

impl AvailabilityZoneScheduler {
    /// Its name in a configuration.
    pub const NAME: &'static str = "availability_zone";

    /// With a zone for requests that ask for none (Nova's `default_schedule_zone`).
    #[must_use]
    pub fn new(default_zone: Option<String>) -> Self {
        Self { default_zone }
    }

    /// Fills in the zone, and takes apart one that names a host.
    fn complete<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let target = match &request.zone {
            Some(zone) if zone.contains(':') => ZoneTarget::parse(zone),
            Some(_) => return Cow::Borrowed(request),
            None if self.default_zone.is_none() => return Cow::Borrowed(request),
            None => Some(ZoneTarget { zone: self.default_zone.clone(), ..ZoneTarget::default() }),
        };
        // With too many parts it is the name of a zone that can't exist.
        let Some(target) = target else { return Cow::Borrowed(request) };
        let mut request = request.clone();
        request.zone = target.zone;
        request.force_host = target.host.or(request.force_host);
        request.force_node = target.node.or(request.force_node);
        Cow::Owned(request)
    }
}

impl Scheduler for AvailabilityZoneScheduler {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn select_destinations(
        &self,
        table: &HostTable,
        request: &Request,
        rng: &mut SchedulerRng,
    ) -> Result<Vec<Selection>, NoValidHost> {
        let request = self.complete(request);
        let query = Query::new(table, &request, None);
        let mut draw = Draw::new(&query);
        place(&query, &query, |overlay| draw.choose(overlay, rng))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    crate::scheduler_conformance!(Box::new(AvailabilityZoneScheduler::default()));

    fn ask(table: &HostTable, default_zone: Option<&str>, zone: Option<&str>) -> Result<Selection, NoValidHost> {
        let scheduler = AvailabilityZoneScheduler::new(default_zone.map(str::to_owned));
        let mut request = Request::new([1, 1, 1].into());
        request.zone = zone.map(str::to_owned);
        let mut rng = SchedulerRng::from_seed(3);
        scheduler.select_destinations(table, &request, &mut rng).map(|mut chosen| chosen.remove(0))
    }

    #[test]
    fn the_default_zone_stands_in_for_none() {
        let table = fixtures::table(40, 4);
        assert_eq!(&*ask(&table, Some("zone-2"), None).unwrap().zone, "zone-2");
        assert_eq!(&*ask(&table, Some("zone-2"), Some("zone-1")).unwrap().zone, "zone-1");
        let nowhere = ask(&table, None, Some("elsewhere")).unwrap_err();
        assert_eq!(nowhere.reasons, [("zone".to_owned(), 40)]);
    }

    #[test]
    fn a_named_host_is_taken_disabled_or_not_but_not_down_or_full_or_absent() {
        let mut table = fixtures::table(8, 4);
        table.set_enabled("host-5", false, Some("for tests")).unwrap();
        assert_eq!(&*ask(&table, None, Some("zone-1:host-5")).unwrap().host, "host-5");
        assert_eq!(&*ask(&table, None, Some("zone-1:host-5:host-5")).unwrap().host, "host-5");
        assert_eq!(&*ask(&table, None, Some("zone-1::host-5")).unwrap().host, "host-5");
        let other_node = ask(&table, None, Some("zone-1:host-5:host-6")).unwrap_err();
        assert_eq!((other_node.considered, other_node.target.as_deref()), (0, Some("host-5")));

        table.allocate("host-5", 1, &[16, 1, 1].into()).unwrap();
        let full = ask(&table, None, Some("zone-1:host-5")).unwrap_err();
        assert_eq!((full.considered, full.turned_away("vcpus")), (1, 1));
        table.set_up("host-5", false).unwrap();
        assert_eq!(ask(&table, None, Some("zone-1:host-5")).unwrap_err().turned_away("down"), 1);
        let absent = ask(&table, None, Some("zone-1:host-99")).unwrap_err();
        assert!(absent.to_string().ends_with("on `host-99`: it is not known"), "{absent}");
        assert!(ask(&table, None, Some("a:b:c:d")).is_err());
    }
}
