use super::Weigher;
use crate::filter_scheduler::{FilterOptions, MetricsOptions};
use crate::{HostTable, HostView, Request};

/// A sum of what hosts report, each metric times its ratio (`metrics.weight_setting`). A host that lacks one is worth
/// `metrics.weight_of_unavailable`, or, if they are required, comes after all others, among which it changes nothing.
/// (Nova fails to weigh then, and advises to turn such hosts away with `MetricsFilter`.)
#[derive(Debug, Clone)]
pub struct MetricsWeigher {
    options: MetricsOptions,
}

impl MetricsWeigher {
    /// With the options of the group `[metrics]`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { options: options.metrics.clone() }
    }
}

impl Weigher for MetricsWeigher {
    fn name(&self) -> &str {
        "MetricsWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.options.weight_multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("metrics_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, _request: &Request) -> f64 {
        let mut sum = 0.0;
        for (name, ratio) in &self.options.weight_setting {
            match host.metric(name).filter(|value| value.is_finite()) {
                Some(value) => sum += value * ratio,
                None if self.options.required => return f64::NEG_INFINITY,
                None if *ratio != 0.0 => return self.options.weight_of_unavailable,
                None => {}
            }
        }
        sum
    }

    fn is_level(&self, _table: &HostTable, _request: &Request) -> bool {
        self.options.weight_setting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::{HostStats, fixtures};

    #[test]
    fn metrics_are_summed_by_their_ratios() {
        let mut table = fixtures::table(3, 1);
        let metrics = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        for (host, list) in [("host-0", vec![("a", 3.0), ("b", 1.0)]), ("host-1", vec![("a", f64::NAN), ("b", 2.0)])] {
            table.set_stats(host, HostStats { metrics: metrics(&list), ..HostStats::default() }).unwrap();
        }
        let mut options = FilterOptions::default();
        options.metrics.weight_setting = vec![("a".to_owned(), 2.0), ("b".to_owned(), -1.0)];
        let request = Request::new([1].into());
        assert_eq!(
            weights(&MetricsWeigher::new(&options), &table, &request),
            [5.0, f64::NEG_INFINITY, f64::NEG_INFINITY]
        );
        options.metrics.required = false;
        assert_eq!(weights(&MetricsWeigher::new(&options), &table, &request), [5.0, -10_000.0, -10_000.0]);
    }
}
