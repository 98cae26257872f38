//! Is everything as it must be? The invariants of the cloud, checked over the whole database and all hosts.
//!
//! [`examine`] is pure: from [`Facts`] to [`Violation`]s. [`read_store`] and a [`Hosts`] collect the facts, [`Checker`]
//! puts all of it together and carries out repairs. `nova-manage check` and the tests of the whole cloud run it.
//!
//! | invariant | what it says here |
//! |---|---|
//! | I1 | on a network each address and MAC address is one port's; each address is free, or taken by something that is there |
//! | I2 | what is booked on a host fits into it, and its node counts it right |
//! | I3 | each live instance holds exactly what its flavor says, on its host; nobody else holds anything |
//! | I4 | whatever was accepted is being worked on, or is over |
//! | I5 | an instance runs on one host at most, and on its own if it is active |
//! | I6 | a project's usage is what its instances and volumes use; pools count what is in them |
//! | I7 | a volume is attached to servers that are there, and to several only if it is for several; what a deleted server has is taken back |
//! | I8 | no guest without a live owner that is assigned to that host; no port of a server that is not there, or elsewhere; no floating address that stands for nothing that is there |
//! | I9 | the states of a row can stand together; a volume's is that of its attachments |
//! | I10 | a deleted instance's secrets are gone |
//! | I16 | nothing that was created is lost: records, numbers, guests |
//! | config | the deployment has the shape that its options say |
//!
//! # A cloud that is at work
//!
//! Facts are read one after the other, and the cloud goes on meanwhile: an instance may be created between the reading
//! of the instances and that of the bookings. So the checker reads twice, and tells only what stands in two consecutive
//! readings with the same [stamp](Violation::stamp): the generations of all rows that the violation speaks of, and what
//! was found instead of rows that are missing. Instances are read first. Since every change of what belongs to an
//! instance raises its generation in the same transaction, equal generations mean that all of it stood still from the
//! one reading to the next, and that the violation was there at one moment in between. What moves is read again, a few
//! times. Time alone is judged with a [grace](Bounds::grace). Not found this way: what is wrong for less than a pause.
//!
//! Repairs name the generations that were read and do nothing if those have gone on; guests are destroyed only after
//! another look at the instance.
//!
//! What can't be seen from here: whether a usage above the limit was above it when it was committed (an operator may have
//! lowered the limit), and the data of images.

mod checker;
mod facts;
mod mend;
mod mend_volumes;
mod rules;
mod violation;

pub use checker::{CheckOptions, Checker, Mended, Outcome, Report};
pub use facts::{Bounds, Facts, GuestFacts, HostFacts, Hosts, StoreFacts, read_store};
pub use rules::examine;
pub use violation::{Repair, Violation, standing};
