use std::sync::Arc;

use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{HostTable, HostView, Request, ZoneDistances};

/// Hosts nearer to the zones that the request wants to be near to are better ([`Request::near_zones`]). Not in Nova.
#[derive(Debug, Clone)]
pub struct ZoneDistanceWeigher {
    multiplier: f64,
    distances: Option<Arc<ZoneDistances>>,
}

impl ZoneDistanceWeigher {
    /// With `zone_distance_weight_multiplier` and `zone_distances`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.zone_distance_weight_multiplier, distances: options.zone_distances.clone() }
    }
}

impl Weigher for ZoneDistanceWeigher {
    fn name(&self) -> &str {
        "ZoneDistanceWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("zone_distance_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64 {
        let near = request.near_zones.iter().map(String::as_str);
        let distance = self.distances.as_ref().map_or(0, |distances| distances.to_nearest(host.zone(), near));
        0.0 - f64::from(distance)
    }

    fn is_level(&self, _table: &HostTable, request: &Request) -> bool {
        self.distances.is_none() || request.near_zones.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn nearer_is_better() {
        let table = fixtures::table(3, 3);
        let distances = ZoneDistances::parse(["zone-0:zone-1=4"]).unwrap();
        let options = FilterOptions { zone_distances: Some(distances.into()), ..FilterOptions::default() };
        let mut request = Request::new([1].into());
        assert_eq!(weights(&ZoneDistanceWeigher::new(&options), &table, &request), [0.0, 0.0, 0.0]);
        request.near_zones = vec!["zone-1".to_owned()];
        assert_eq!(weights(&ZoneDistanceWeigher::new(&options), &table, &request), [-4.0, 0.0, -5.0]);
    }
}
