//! Settings that may change while a service runs.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Settings as they are now: read without a lock, replaced as a whole on SIGHUP. Clones share one value.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Live<T> {
    /// Begins with these.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// What holds now; work in hand goes on with what it has read.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// From now on, these.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

#[cfg(test)]
mod tests {
    use super::Live;

    #[test]
    fn all_clones_see_a_change() {
        let one = Live::new(1);
        let other = one.clone();
        one.set(2);
        assert_eq!(*other.get(), 2);
    }
}
