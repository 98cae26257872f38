use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{HostTable, HostView, Request};

/// When an instance moves, hosts of its own cell come first.
#[derive(Debug, Clone)]
pub struct CrossCellWeigher {
    multiplier: f64,
}

impl CrossCellWeigher {
    /// With `cross_cell_move_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.cross_cell_move_weight_multiplier }
    }
}

impl Weigher for CrossCellWeigher {
    fn name(&self) -> &str {
        "CrossCellWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("cross_cell_move_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64 {
        match &request.source_cell {
            None => 0.0,
            Some(cell) if host.attributes().cell.as_ref() == Some(cell) => 1.0,
            Some(_) => -1.0,
        }
    }

    fn is_level(&self, _table: &HostTable, request: &Request) -> bool {
        request.source_cell.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_own_cell_comes_first() {
        let mut table = fixtures::table(2, 1);
        let mut host = fixtures::host(1, 1);
        host.attributes = crate::HostAttributes { cell: Some("one".to_owned()), ..Default::default() }.into();
        table.upsert_host(host).unwrap();
        let weigher = CrossCellWeigher::new(&FilterOptions::default());
        let mut request = Request::new([1].into());
        assert_eq!(weights(&weigher, &table, &request), [0.0, 0.0]);
        request.source_cell = Some("one".to_owned());
        assert_eq!(weights(&weigher, &table, &request), [-1.0, 1.0]);
    }
}
