use super::{Filter, Reads};
use crate::filter_scheduler::FilterOptions;
use crate::{HostView, Request};

/// Where an aggregate's metadata names a property of the image, the property must have one of the values there.
#[derive(Debug, Clone, Default)]
pub struct AggregateImagePropertiesIsolation {
    /// Only keys that begin with this count.
    prefix: String,
}

impl AggregateImagePropertiesIsolation {
    /// With `aggregate_image_properties_isolation_namespace` and `..._separator`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        let separator = &options.aggregate_image_properties_isolation_separator;
        let namespace =
            options.aggregate_image_properties_isolation_namespace.as_deref().filter(|name| !name.is_empty());
        Self { prefix: namespace.map(|namespace| format!("{namespace}{separator}")).unwrap_or_default() }
    }
}

impl Filter for AggregateImagePropertiesIsolation {
    fn name(&self) -> &str {
        "AggregateImagePropertiesIsolation"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let Some(image) = &request.image else { return true };
        host.aggregate_metadata().iter().filter(|(key, _)| key.starts_with(&self.prefix)).all(|(key, values)| {
            image.properties.get(key).is_none_or(|property| property.is_empty() || values.contains(property))
        })
    }

    fn reads(&self, request: &Request) -> Reads {
        let silent = request.image.as_ref().is_none_or(|image| image.properties.is_empty());
        if silent { Reads::Nothing } else { Reads::Aggregates }
    }

    fn runs_on_rebuild(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{aggregate_of_first, passing, request, three};
    use super::*;
    use crate::ImageRef;

    #[test]
    fn an_aggregate_names_the_properties_that_it_takes() {
        let mut table = three();
        aggregate_of_first(&mut table, &[("os_distro", "windows,debian"), ("other.key", "x")]);
        let mut request = request();
        let filter = AggregateImagePropertiesIsolation::default();
        assert_eq!(passing(&filter, &table, &request), [0, 1, 2]);
        let with = |key: &str, value: &str| ImageRef {
            id: String::new(),
            properties: [(key.to_owned(), value.to_owned())].into(),
        };
        request.image = Some(with("os_distro", "debian"));
        assert_eq!(passing(&filter, &table, &request), [0, 1, 2]);
        request.image = Some(with("os_distro", "cirros"));
        assert_eq!(passing(&filter, &table, &request), [1, 2]);
        let options = FilterOptions {
            aggregate_image_properties_isolation_namespace: Some("other".to_owned()),
            ..FilterOptions::default()
        };
        assert_eq!(passing(&AggregateImagePropertiesIsolation::new(&options), &table, &request), [0, 1, 2]);
        request.image = Some(with("other.key", "y"));
        assert_eq!(passing(&AggregateImagePropertiesIsolation::new(&options), &table, &request), [1, 2]);
    }
}
