//! What images the servers on hosts were made from, for the weigher that keeps like with like. Reading it costs one more
//! list of all servers at each refresh, so it is only done where something weighs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::aggregate::Aggregate;
use nova_core::instance::Instance;
use nova_core::request::RequestSpec;

use super::Hosts;

/// The key under which aggregates weigh it differently.
const MULTIPLIER: &str = "image_props_weight_multiplier";

/// Does any aggregate want it weighed?
pub(super) fn weighed_by_aggregates(aggregates: &[Aggregate]) -> bool {
    aggregates.iter().any(|aggregate| aggregate.metadata.contains_key(MULTIPLIER))
}

impl Hosts {
    /// Notes the images' properties of all servers that hold something.
    pub fn note_images(&mut self, instances: &[Instance]) {
        self.weighs_images = true;
        let mut kept: BTreeMap<&BTreeMap<String, String>, Arc<BTreeMap<String, String>>> = BTreeMap::new();
        for instance in instances {
            let Some(image) = &instance.image else { continue };
            let properties = kept.entry(&image.properties).or_insert_with(|| Arc::new(image.properties.clone()));
            self.table.set_image_properties(instance.id.as_u128(), Arc::clone(properties));
        }
    }

    /// The same for servers that were just promised a place.
    pub(super) fn note_promised_images(&mut self, spec: &RequestSpec) {
        let Some(image) = spec.image.as_ref().filter(|_| self.weighs_images) else { return };
        let properties = Arc::new(image.properties.clone());
        for instance in &spec.instances {
            self.table.set_image_properties(instance.as_u128(), Arc::clone(&properties));
        }
    }
}
