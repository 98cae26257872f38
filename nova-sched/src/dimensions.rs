//! Named resource dimensions and amounts of them.

use std::sync::Arc;

use crate::SchedulerError;

/// The most dimensions that a table can have.
pub const MAX_DIMENSIONS: usize = 8;

/// The resources that a caller counts, by name and in a fixed order.
///
/// The names and units are the caller's: `vcpus`, `memory_mb`, `disk_gb` for virtual machines, `gigabytes` for
/// volumes. Order matters twice: [`ResourceVector`]s are indexed by it, and a host that lacks two resources is counted
/// under the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    names: Arc<[Arc<str>]>,
}

impl Dimensions {
    /// Names the dimensions, in order.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::InvalidDimensions`] when there are none, more than [`MAX_DIMENSIONS`], or two of one name.
    pub fn new<I, S>(names: I) -> Result<Self, SchedulerError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let names: Vec<Arc<str>> = names.into_iter().map(|name| Arc::from(name.as_ref())).collect();
        if names.is_empty() || names.len() > MAX_DIMENSIONS {
            return Err(SchedulerError::InvalidDimensions {
                reason: format!("{} given, 1 to {MAX_DIMENSIONS} possible", names.len()),
            });
        }
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() || names[..index].contains(name) {
                return Err(SchedulerError::InvalidDimensions { reason: format!("`{name}` is empty or given twice") });
            }
        }
        Ok(Self { names: names.into() })
    }

    /// How many dimensions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Always false: a table counts at least one resource.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// The name of the dimension at `index`.
    #[must_use]
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(AsRef::as_ref)
    }

    /// The place of the dimension `name`.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.as_ref() == name)
    }

    /// Builds a vector from names and amounts; what isn't named is zero.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownDimension`] when a name isn't one of these dimensions.
    pub fn vector(&self, amounts: &[(&str, u64)]) -> Result<ResourceVector, SchedulerError> {
        let mut vector = ResourceVector::default();
        for (name, amount) in amounts {
            let index =
                self.index(name).ok_or_else(|| SchedulerError::UnknownDimension { name: (*name).to_owned() })?;
            vector.0[index] = *amount;
        }
        Ok(vector)
    }

    /// Pairs each dimension's name with its amount, for messages.
    #[must_use]
    pub fn describe(&self, vector: &ResourceVector) -> Vec<(String, u64)> {
        self.names().enumerate().map(|(index, name)| (name.to_owned(), vector.get(index))).collect()
    }
}

/// An amount of each dimension, indexed in the order of [`Dimensions`]. Plain data, without a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResourceVector(pub(crate) [u64; MAX_DIMENSIONS]);

impl ResourceVector {
    /// The amount of the dimension at `index`; zero beyond the last.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// Sets the amount of the dimension at `index`; beyond [`MAX_DIMENSIONS`] nothing happens.
    pub fn set(&mut self, index: usize, amount: u64) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = amount;
        }
    }

    /// The dimensions of which there is something, with their amounts.
    pub fn non_zero(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, amount)| *amount > 0)
    }

    /// Whether nothing is asked of any dimension.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|amount| *amount == 0)
    }

    /// The sum, dimension by dimension, stopping at the largest number.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        let mut sum = *self;
        for (amount, more) in sum.0.iter_mut().zip(other.0) {
            *amount = amount.saturating_add(more);
        }
        sum
    }

    /// Whether every amount is at most the other's.
    #[must_use]
    pub fn fits_in(&self, room: &Self) -> bool {
        self.0.iter().zip(room.0).all(|(amount, room)| *amount <= room)
    }
}

impl<const N: usize> From<[u64; N]> for ResourceVector {
    fn from(amounts: [u64; N]) -> Self {
        const { assert!(N <= MAX_DIMENSIONS, "too many dimensions") };
        let mut vector = Self::default();
        vector.0[..N].copy_from_slice(&amounts);
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_be_few_and_distinct() {
        assert!(Dimensions::new(Vec::<&str>::new()).is_err());
        assert!(Dimensions::new(["a", "a"]).is_err());
        assert!(Dimensions::new(["a", ""]).is_err());
        assert!(Dimensions::new(["1", "2", "3", "4", "5", "6", "7", "8", "9"]).is_err());
        let dimensions = Dimensions::new(["a", "b"]).unwrap();
        assert_eq!(dimensions.index("b"), Some(1));
        assert_eq!(dimensions.name(2), None);
    }

    #[test]
    fn a_vector_is_built_by_name_or_by_order() {
        let dimensions = Dimensions::new(["vcpus", "memory_mb"]).unwrap();
        let named = dimensions.vector(&[("memory_mb", 512), ("vcpus", 1)]).unwrap();
        assert_eq!(named, ResourceVector::from([1, 512]));
        let error = dimensions.vector(&[("gpus", 1)]).unwrap_err();
        assert!(error.to_string().contains("gpus"), "{error}");
    }
}
