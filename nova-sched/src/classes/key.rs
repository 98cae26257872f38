//! What tells one class of requests from another.

use std::hash::Hasher;

use super::Reach;
use crate::dimensions::ResourceVector;
use crate::hash::Mixer;
use crate::query::Query;

/// What the requests of a class have in common.
#[derive(PartialEq, Eq)]
pub(super) struct Key {
    /// The load index that merits come from; none when all hosts are worth the same.
    pub(super) load: Option<usize>,
    pub(super) reach: Reach,
    resources: ResourceVector,
    limit: Option<(usize, u64)>,
    architecture: Vec<usize>,
    required: Vec<usize>,
    forbidden: Vec<usize>,
}

impl Key {
    /// The hash of the request's class.
    pub(super) fn hash_of(query: &Query<'_>, load: Option<usize>, reach: Reach) -> u64 {
        let mut mixer = Mixer::default();
        mixer.write_usize(load.map_or(0, |load| load + 1));
        mixer.write_u64(match reach {
            Reach::Everywhere => 0,
            Reach::Zone(zone) => u64::from(zone) + 1,
        });
        for (index, amount) in query.request.resources.non_zero() {
            mixer.write_u64((index as u64) << 60 ^ amount);
        }
        if let Some(limit) = query.limit {
            mixer.write_u64(limit.most);
        }
        let (architecture, required, forbidden) = query.marks();
        for (kind, ids) in [architecture, required, forbidden].into_iter().enumerate() {
            ids.iter().for_each(|id| mixer.write_u64((kind as u64) << 60 ^ *id as u64));
        }
        mixer.finish()
    }

    /// Whether the request is of this class.
    pub(super) fn is_of(&self, query: &Query<'_>, load: Option<usize>, reach: Reach) -> bool {
        let (architecture, required, forbidden) = query.marks();
        self.load == load
            && self.reach == reach
            && self.resources == query.request.resources
            && self.limit == query.limit.map(|limit| (limit.dimension, limit.most))
            && self.architecture == architecture
            && self.required == required
            && self.forbidden == forbidden
    }

    /// The class of the request.
    pub(super) fn of(query: &Query<'_>, load: Option<usize>, reach: Reach) -> Self {
        let (architecture, required, forbidden) = query.marks();
        Self {
            load,
            reach,
            resources: query.request.resources,
            limit: query.limit.map(|limit| (limit.dimension, limit.most)),
            architecture: architecture.to_vec(),
            required: required.to_vec(),
            forbidden: forbidden.to_vec(),
        }
    }
}
