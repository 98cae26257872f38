use super::{Filter, Reads};
use crate::filter_scheduler::FilterOptions;
use crate::{HostView, Request};

/// Passes hosts that report every metric that the weigher reads (`metrics.weight_setting`).
#[derive(Debug, Clone, Default)]
pub struct MetricsFilter {
    names: Vec<String>,
}

impl MetricsFilter {
    /// With the metrics of the options.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { names: options.metrics.weight_setting.iter().map(|(name, _)| name.clone()).collect() }
    }
}

impl Filter for MetricsFilter {
    fn name(&self) -> &str {
        "MetricsFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, _request: &Request) -> bool {
        self.names.iter().all(|name| host.metric(name).is_some())
    }

    fn reads(&self, _request: &Request) -> Reads {
        if self.names.is_empty() { Reads::Nothing } else { Reads::Host }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::HostStats;

    #[test]
    fn hosts_must_report_all_metrics() {
        let mut table = three();
        for (number, names) in [vec!["a", "b"], vec!["a"]].into_iter().enumerate() {
            let metrics = names.into_iter().map(|name| (name.to_owned(), 1.0)).collect();
            table.set_stats(&format!("host-{number}"), HostStats { metrics, ..HostStats::default() }).unwrap();
        }
        assert_eq!(passing(&MetricsFilter::default(), &table, &request()), [0, 1, 2]);
        let mut options = FilterOptions::default();
        options.metrics.weight_setting = vec![("a".to_owned(), 1.0), ("b".to_owned(), -1.0)];
        assert_eq!(passing(&MetricsFilter::new(&options), &table, &request()), [0]);
    }
}
