use std::collections::BTreeSet;

use super::Filter;
use crate::filter_scheduler::FilterOptions;
use crate::{HostView, Request};

/// Keeps some images to some hosts (`isolated_images`, `isolated_hosts`), and, if so set
/// (`restrict_isolated_hosts_to_isolated_images`), other images from them.
#[derive(Debug, Clone, Default)]
pub struct IsolatedHostsFilter {
    hosts: BTreeSet<String>,
    images: BTreeSet<String>,
    restrict: bool,
}

impl IsolatedHostsFilter {
    /// With the lists of the options.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self {
            hosts: options.isolated_hosts.iter().cloned().collect(),
            images: options.isolated_images.iter().cloned().collect(),
            restrict: options.restrict_isolated_hosts_to_isolated_images,
        }
    }
}

impl Filter for IsolatedHostsFilter {
    fn name(&self) -> &str {
        "IsolatedHostsFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let host_isolated = self.hosts.contains(host.name());
        let image_isolated = request.image.as_ref().is_some_and(|image| self.images.contains(&image.id));
        if self.restrict { image_isolated == host_isolated } else { !image_isolated || host_isolated }
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::ImageRef;

    #[test]
    fn images_and_hosts_are_kept_to_each_other() {
        let table = three();
        let mut options = FilterOptions { isolated_hosts: vec!["host-1".to_owned()], ..FilterOptions::default() };
        options.isolated_images = vec!["safe".to_owned()];
        let strict = IsolatedHostsFilter::new(&options);
        options.restrict_isolated_hosts_to_isolated_images = false;
        let lax = IsolatedHostsFilter::new(&options);
        let mut request = request();
        assert_eq!(passing(&strict, &table, &request), [0, 2]);
        assert_eq!(passing(&lax, &table, &request), [0, 1, 2]);
        request.image = Some(ImageRef { id: "safe".to_owned(), ..ImageRef::default() });
        assert_eq!(passing(&strict, &table, &request), [1]);
        assert_eq!(passing(&lax, &table, &request), [1]);
        options.isolated_images.clear();
        assert_eq!(passing(&IsolatedHostsFilter::new(&options), &table, &request), [0, 1, 2]);
        options.restrict_isolated_hosts_to_isolated_images = true;
        assert_eq!(passing(&IsolatedHostsFilter::new(&options), &table, &request), [0, 2]);
    }
}
