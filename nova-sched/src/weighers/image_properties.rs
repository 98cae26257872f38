use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{HostTable, HostView, Request};

/// Hosts with more instances of the same image properties are better; off by default. A table learns them from
/// [`HostTable::set_image_properties`].
#[derive(Debug, Clone)]
pub struct ImagePropertiesWeigher {
    multiplier: f64,
}

impl ImagePropertiesWeigher {
    /// With `image_props_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.image_props_weight_multiplier }
    }
}

impl Weigher for ImagePropertiesWeigher {
    fn name(&self) -> &str {
        "ImagePropertiesWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("image_props_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64 {
        let Some(image) = &request.image else { return 0.0 };
        let same = host.image_properties().map(|properties| {
            properties.iter().filter(|(key, value)| image.properties.get(*key) == Some(*value)).count()
        });
        same.sum::<usize>() as f64
    }

    fn is_level(&self, _table: &HostTable, request: &Request) -> bool {
        request.image.as_ref().is_none_or(|image| image.properties.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::fixtures;

    #[test]
    fn instances_of_a_kind_attract() {
        let mut table = fixtures::table(2, 1);
        let properties = |os: &str| [("os".to_owned(), os.to_owned()), ("hw".to_owned(), "a".to_owned())].into();
        for (consumer, host, os) in [(1, "host-0", "linux"), (2, "host-1", "bsd"), (3, "host-1", "linux")] {
            table.allocate(host, consumer, &[1, 0, 0].into()).unwrap();
            table.set_image_properties(consumer, std::sync::Arc::new(properties(os)));
        }
        table.set_image_properties(99, std::sync::Arc::new(properties("linux")));
        let weigher = ImagePropertiesWeigher::new(&FilterOptions::default());
        let mut request = Request::new([1].into());
        assert_eq!(weights(&weigher, &table, &request), [0.0, 0.0]);
        request.image = Some(crate::ImageRef { id: String::new(), properties: properties("linux") });
        assert_eq!(weights(&weigher, &table, &request), [2.0, 3.0]);
        table.release(3);
        assert_eq!(weights(&weigher, &table, &request), [2.0, 1.0]);
    }
}
