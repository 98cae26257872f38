//! The binaries that make a cloud of the crates: configuration in, services out.
